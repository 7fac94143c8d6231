package main

import "strings"

const (
	plainHead = " HTTP/1.1\r\nHost: proxy.test\r\nAuthorization: Bearer s3cret-token-0123\r\n"
	plainGet  = "GET /v1/models?limit=s3cret-query-1" + plainHead + "Accept: a\r\nAccept: b\r\n\r\n"
	plainPost = "POST /v1/messages" + plainHead + "Content-Length: 19\r\n\r\n{\"s3cret\":\"body-1\"}"
)

// wireSeeds are the initial inputs, from plain to hostile.
var wireSeeds = []string{
	plainGet,
	plainPost,
	plainGet + plainPost + plainGet,
	"DELETE //v1/%2e%2F;a=b/../x?y=%zz;z&q#f{" + plainHead + "Content-Length: 0\r\n\r\n",
	"GET /v1/models HTTP/1.0\r\nHost: proxy.test\r\n\r\n" + plainGet,
	"GET http://elsewhere.test/v1/x?y HTTP/1.1\r\nHost: proxy.test\r\n\r\n" + plainGet,
	"GET http://user:s3cret@elsewhere.test?y HTTP/1.1\r\nHost: proxy.test\r\n\r\n",
	"OPTIONS *" + plainHead + "\r\nGET *" + plainHead + "\r\n",
	"GET /health" + plainHead + "\r\nGET //health" + plainHead + "\r\nHEAD /metrics" + plainHead + "\r\nPOST /health" + plainHead + "Content-Length: 3\r\n\r\nabc",
	"POST /v1/messages" + plainHead + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\n\r\n" + plainGet,
	"POST /v1/messages" + plainHead + "Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\nAuthorization: Bearer s3cret-other\r\n\r\n" + plainGet,
	"GET /v1/messages" + plainHead + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + plainPost,
	"GET /v1/messages" + plainHead + "Content-Length: 5\r\n\r\nGET /" + plainGet,
	"POST /v1/messages" + plainHead + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled" + plainHead + "\r\n",
	"POST /v1/messages" + plainHead + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nabcde\r\n0\r\n\r\n" + plainGet,
	"POST /v1/messages" + plainHead + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd" + plainGet,
	"POST /v1/messages" + plainHead + "Content-Length: 30\r\n\r\nabc",
	"POST /v1/messages" + plainHead + "Content-Length: 2001\r\n\r\n" + strings.Repeat("x", 2001) + plainGet,
	"POST /v1/messages" + plainHead + "Content-Length: 2000\r\n\r\n" + strings.Repeat("x", 2000) + plainGet,
	"POST /v1/messages" + plainHead + "Transfer-Encoding: chunked\r\n\r\n7d1\r\n" + strings.Repeat("x", 2001) + "\r\n0\r\n\r\n" + plainGet,
	"POST /v1/messages HTTP/1.0\r\nHost: proxy.test\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc" + plainGet,
	"POST /v1/messages" + plainHead + "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc" + plainGet,
	"POST /v1/messages" + plainHead + "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + plainGet,
	"POST /v1/messages" + plainHead + "Expect: 100-continue\r\nContent-Length: 2001\r\n\r\n",
	"POST /v1/messages" + plainHead + "Expect: 100-continue\r\n\r\n" + plainGet,
	"GET /v1" + plainHead + "Authorization: second\r\nX-Api-Key: s3cret-api-key-1\r\nConnection: authorization, X-Api-Key, x-gone\r\nX-Gone: 1\r\nX-Stays: 1\r\n\r\n" + plainGet,
	"GET /v1" + plainHead + "Anthropic-Beta: a, b\r\nanthropic-beta:c,\r\n\r\n" + plainGet,
	"GET /v1" + plainHead + "Anthropic-Beta: OAuth-2025-04-20\r\nX-Set: theirs\r\nConnection: anthropic-beta, x-set\r\n\r\n" + plainGet,
	"GET /v1" + plainHead + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + plainGet,
	"GET /v1" + plainHead + "Keep-Alive: 5\r\nProxy-Authorization: Basic s3cret-proxy-1\r\nProxy-Connection: close\r\nTe: trailers\r\nProxy-Authenticate: a\r\n\r\n" + plainGet,
	"GET /v1" + plainHead + "Connection: te, connection, host, content-length\r\nTE: trailers\r\nConnection: keep-alive\r\n\r\n" + plainPost,
	"GET /v1" + plainHead + "Forwarded: for=1\r\nX-Forwarded-For: 100.64.0.1\r\nX-Forwarded-Anything: 1\r\nX-Real-IP: 1\r\nTailscale-User-Login: a\r\nVia: 1.1 a\r\nCF-Ray: 1\r\nCDN-Loop: a\r\nX-Envoy-A: 1\r\nFly-Region: a\r\n\r\n" + plainGet,
	"POST /v1" + plainHead + "Idempotency-Key: 1\r\nX-Idempotency-Key: 2\r\nContent-Length: 1\r\n\r\nx" + plainGet,
	"GET /v1" + plainHead + "Accept-Encoding: br\r\nUser-Agent: a/1\r\nCookie: a=s3cret-cookie-1; b=2\r\nCookie: c=3\r\nX-Empty:\r\nRange: bytes=0-1\r\n\r\n" + plainGet,
	"GET /v1" + plainHead + "Pragma: no-cache\r\n\r\n" + plainGet,
	"GET /v1 HTTP/1.1\nHost: proxy.test\nAuthorization: Bearer s3cret-token-4567\n\n" + plainGet,
	"GET /v1 HTTP/1.1\r\nHost: proxy.test\r\nAuthorization: Bearer\r\n s3cret-token-4567\r\n\t\r\nX-A: b\r\n\r\n" + plainGet,
	"GET /v1" + plainHead + "Connection: x-gone\r\n , authorization\r\nX-Gone: 1\r\n\r\n" + plainGet,
	"GET /v1" + plainHead + "X-A: a\x00b\r\n\r\n" + plainGet,
	"POST /v1" + plainHead + "Transfer-Encoding: chunked\r\n\r\n3;x=\"\x01\r\nabc\r\n0\r\n\r\n" + plainGet,
	"POST /v1" + plainHead + "Transfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n" + plainGet,
	"CONNECT elsewhere.test:443" + plainHead + "\r\nGET elsewhere.test:443" + plainHead + "\r\n",
	"GET /v1 HTTP/1.1\r\n\r\n",
	"GET /100%" + plainHead + "\r\n",
	"GET /v1 HTTP/1.2\r\nHost: a\r\n\r\nGET /v1 HTTP/2.0\r\nHost: a\r\n\r\n",
	"GET /v1" + plainHead + "X-Large: " + strings.Repeat("x", 70<<10) + "\r\n\r\n" + plainGet,
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
	"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
	"GET /v1" + plainHead,
	"",
	strings.Repeat(plainPost, 20),
}
