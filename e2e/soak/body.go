package main

import (
	"bytes"
	"context"
	"io"
	"sync/atomic"
)

// upload hands out a request body, and may stop at a limit.
type upload struct {
	*bytes.Reader
	ctx     context.Context
	limit   int64 // 0: none
	atLimit func()
	taken   atomic.Int64
}

func (u *upload) Read(to []byte) (int, error) {
	if u.limit > 0 {
		if left := u.limit - u.taken.Load(); left <= 0 {
			if u.atLimit != nil {
				u.atLimit()
			}
			<-u.ctx.Done()
			return 0, context.Cause(u.ctx)
		} else if int64(len(to)) > left {
			to = to[:left]
		}
	}
	n, err := u.Reader.Read(to)
	u.taken.Add(int64(n))
	return n, err
}

// WriteTo hides that of bytes.Reader, which knows no limit.
func (u *upload) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{u})
}

// countingReader counts the bytes of an answer.
type countingReader struct {
	io.Reader
	n int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n += int64(n)
	return n, err
}
