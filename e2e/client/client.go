// Package client is a typical client of the proxy. It sends what Claude Code sends and reads streams event by event. It requests
// Parts from the stand-in and checks every byte of the answers.
package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// Token is the credential of every request. No log may contain it.
const Token = "sk-ant-oat01-this-must-not-be-logged"

// Flags are the beta flags of every request.
const Flags = "claude-code-20250219,interleaved-thinking-2025-05-14"

// Client sends requests to one server. Over HTTP/1.1, requests that run at once never share a connection. It keeps idle connections.
type Client struct {
	URL       string
	Flags     string // the anthropic-beta; default: Flags
	Transport *http.Transport
}

// New returns a client that shares no connection with other clients.
func New(url string) *Client {
	return &Client{URL: url, Flags: Flags, Transport: &http.Transport{
		DisableCompression: true, MaxIdleConns: 0, MaxIdleConnsPerHost: 1 << 20, IdleConnTimeout: 10 * time.Minute,
	}}
}

// Close closes the idle connections.
func (c *Client) Close() { c.Transport.CloseIdleConnections() }

// StatusError is an answer with a status other than 200.
type StatusError struct {
	Status int
	Header http.Header
	Body   string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("status %d: %.300s", e.Status, strings.TrimSpace(e.Body))
}

// ErrWrongBytes means that the received bytes differ from the sent ones.
var ErrWrongBytes = errors.New("not what was sent")

// Do sends a request for a path as Claude Code would. With a length below 0 it declares none. net/http cannot send the body again,
// so a lost request is never hidden.
func (c *Client) Do(ctx context.Context, method, path string, body io.Reader, length int64) (*http.Response, error) {
	if length != 0 {
		body = io.NopCloser(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = length
	for name, value := range map[string]string{
		"Accept":                      "application/json",
		"Accept-Encoding":             "gzip, deflate, br",
		"Anthropic-Beta":              c.Flags,
		"Anthropic-Version":           "2023-06-01",
		"Authorization":               "Bearer " + Token,
		"Content-Type":                "application/json",
		"User-Agent":                  "claude-cli/2.1.0 (external, cli)",
		"X-App":                       "cli",
		"X-Stainless-Lang":            "js",
		"X-Stainless-Package-Version": "0.70.0",
		"X-Stainless-Runtime":         "node",
	} {
		req.Header.Set(name, value)
	}
	return c.Transport.RoundTrip(req)
}

// Post sends a Part's request with a body. It returns the answer only if its status is 200.
func (c *Client) Post(ctx context.Context, p standin.Part, body []byte) (*http.Response, error) {
	res, err := c.Do(ctx, http.MethodPost, p.String(), bytes.NewReader(body), int64(len(body)))
	if err != nil {
		return nil, err
	}
	return res, Refused(res)
}

// Refused returns a StatusError and closes the body, unless the status is 200.
func Refused(res *http.Response) error {
	if res.StatusCode == http.StatusOK {
		return nil
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return &StatusError{res.StatusCode, res.Header, string(text)}
}

// Ask sends a Part's request and checks that the answer is the one that the Part describes.
func (c *Client) Ask(ctx context.Context, p standin.Part, body []byte) error {
	res, err := c.Post(ctx, p, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return Check(res.Body, p, body)
}

// Check reads the answer to a Part that is not a stream, and compares it with the expected one.
func Check(answer io.Reader, p standin.Part, body []byte) error {
	if p.Early {
		body = nil
	}
	if p.Size == 0 {
		got, err := io.ReadAll(answer)
		if want := standin.ReceiptFor(body); err == nil && string(got) != want {
			err = fmt.Errorf("%w: %.200q, want %q", ErrWrongBytes, got, want)
		}
		return err
	}
	buf := make([]byte, 32<<10)
	for read := int64(0); ; {
		n, err := answer.Read(buf)
		for got := buf[:n]; len(got) > 0; {
			want := standin.Content(read)
			same := min(len(got), len(want))
			if !bytes.Equal(got[:same], want[:same]) {
				return fmt.Errorf("%w: %.200q after %d bytes", ErrWrongBytes, got, read)
			}
			read, got = read+int64(same), got[same:]
		}
		switch {
		case err == io.EOF && read == p.Size:
			return nil
		case err == io.EOF:
			return fmt.Errorf("%w: %d bytes of %d", ErrWrongBytes, read, p.Size)
		case err != nil:
			return err
		}
	}
}
