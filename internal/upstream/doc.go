// Package upstream sends one request to the upstream and brings back its response, or an honest error.
package upstream
