package proxy

import (
	"fmt"
	"net/http"
)

// maxHeaderLines is how many header lines a request may have (contract section 4). A parsed line takes far more memory than its bytes.
// net/http itself limits the bytes, to 32 KiB.
const maxHeaderLines = 128

// limitHeaders answers a request with too many header lines with 431.
func (p *proxy) limitHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lines := 0
		for _, values := range r.Header {
			lines += len(values)
		}
		if lines > maxHeaderLines {
			p.refuse(w, exchangeFrom(r.Context()), http.StatusRequestHeaderFieldsTooLarge,
				fmt.Sprintf("request headers too large: %d lines, the limit is %d", lines, maxHeaderLines))
			return
		}
		next.ServeHTTP(w, r)
	})
}
