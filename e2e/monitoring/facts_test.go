package monitoring

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"github.com/pelletier/go-toml/v2"
	"gotest.tools/v3/assert"
)

// facts are the names that the runbook may use and must use, by the section whose table lists them. What the program prints
// is asked of the program; what it would say only in trouble is read in its source.
type facts map[string][]string

var gathered facts // by the first test that asked

func gatherFacts(t *testing.T) facts {
	t.Helper()
	if gathered != nil {
		return gathered
	}
	shown, outcomes := traffic(t)
	f := facts{
		"Error types":  slices.Collect(maps.Keys(shown["proxy_upstream_errors_total"]["error_type"])),
		"Log outcomes": slices.Collect(maps.Keys(shown["proxy_streams_total"]["outcome"])),
	}
	for outcome := range outcomes {
		assert.Check(t, slices.Contains(f["Log outcomes"], outcome), "the log has the outcome %q, which is no label of proxy_streams_total", outcome)
	}
	assert.Equal(t, len(outcomes), len(f["Log outcomes"]), "the traffic of these tests must end in every way there is; it ended in %v", outcomes)
	metrics := map[string]bool{}
	for name := range shown {
		if strings.HasPrefix(name, "proxy_") {
			metrics[family(name)] = true
		}
	}
	f["Metrics"] = slices.Collect(maps.Keys(metrics))

	f["Flags"] = flags(t)
	f["Configuration keys"] = configKeys(t)
	f["States"], f["Log keys"] = logFacts(t)

	src := source{t: t, root: repository}
	f["Exit codes"] = append(src.constants("cmd/anthropic-oauth-proxy/flags.go", "exit"), "130", "143")
	f["Reasons"] = src.reasons()
	f["Other lines"] = src.warnings()
	f["First: the doctor"] = append(src.keys("internal/doctor/doctor.go", "hints"), "upstream")
	for section := range f {
		assert.Assert(t, len(f[section]) > 0, "nothing found for the section %q: the program has changed its form, and facts_test.go must follow", section)
		slices.Sort(f[section])
		f[section] = slices.Compact(f[section])
	}
	gathered = f
	return f
}

func flags(t *testing.T) (names []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^  --([a-z-]+)`).FindAllStringSubmatch(program(t, "--help"), -1) {
		names = append(names, "--"+m[1])
	}
	return names
}

func configKeys(t *testing.T) (keys []string) {
	t.Helper()
	var file struct {
		Proxy   map[string]any   `toml:"proxy"`
		Headers []map[string]any `toml:"headers"`
	}
	assert.NilError(t, toml.Unmarshal([]byte(program(t, "--print-config")), &file))
	keys = slices.Collect(maps.Keys(file.Proxy))
	for _, rule := range file.Headers {
		keys = slices.AppendSeq(keys, maps.Keys(rule))
	}
	return keys
}

// program runs the program once and returns what it prints.
func program(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"run", "./cmd/anthropic-oauth-proxy"}, args...)...)
	cmd.Dir = repository
	out, err := cmd.Output()
	assert.NilError(t, err, "%v", args)
	return string(out)
}

// logFacts are the states of a whole life and the keys of request lines, one of them a failure's.
func logFacts(t *testing.T) (states, keys []string) {
	t.Helper()
	p := binary.Start(t, binary.Config{Upstream: "http://127.0.0.1:1"})
	resp, err := http.Get(p.URL + "/nobody-listens")
	assert.NilError(t, err)
	assert.NilError(t, resp.Body.Close())
	p.Finished(t, resp.Header.Get("X-Proxy-Request-Id"))
	assert.Equal(t, p.Stop(t), 0)
	for _, line := range p.Lines(t) {
		if state, ok := line["state"].(string); ok {
			states = append(states, state)
		}
		if line["msg"] == "request" {
			keys = slices.AppendSeq(keys, maps.Keys(line))
		}
	}
	return states, slices.DeleteFunc(keys, func(key string) bool { return key == "time" || key == "level" || key == "msg" })
}

// source reads the Go files of the product.
type source struct {
	t    *testing.T
	root string
}

func (s source) file(name string) *ast.File {
	s.t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(s.root, name), nil, 0)
	assert.NilError(s.t, err)
	return file
}

func (s source) files(dir string) (files []*ast.File) {
	s.t.Helper()
	names, err := filepath.Glob(filepath.Join(s.root, dir, "*.go"))
	assert.NilError(s.t, err)
	for _, name := range names {
		if !strings.HasSuffix(name, "_test.go") {
			files = append(files, s.file(filepath.Join(dir, filepath.Base(name))))
		}
	}
	return files
}

// constants are the values of the constants whose names begin so.
func (s source) constants(file, prefix string) (values []string) {
	s.t.Helper()
	ast.Inspect(s.file(file), func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(spec.Names[0].Name, prefix) && len(spec.Values) == 1 {
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
				values = append(values, lit.Value)
			}
		}
		return true
	})
	return values
}

// keys are the keys of the map literal that a variable is set to.
func (s source) keys(file, variable string) (keys []string) {
	s.t.Helper()
	ast.Inspect(s.file(file), func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Names[0].Name != variable || len(spec.Values) != 1 {
			return true
		}
		if lit, ok := spec.Values[0].(*ast.CompositeLit); ok {
			for _, element := range lit.Elts {
				keys = append(keys, text(element.(*ast.KeyValueExpr).Key))
			}
		}
		return false
	})
	return keys
}

// reasons are the texts of our own errors: the Reason of an upstream.Error and what reason() returns, what a request is refused
// with, and the errors that are passed to that.
func (s source) reasons() (reasons []string) {
	s.t.Helper()
	add := func(e ast.Expr) {
		if reason := text(e); reason != "" {
			reasons = append(reasons, regexp.MustCompile(`%[a-z]`).ReplaceAllString(reason, "N"))
		}
	}
	texts := map[string]ast.Expr{} // of the package's error variables
	upstream := s.files("internal/upstream")
	for _, file := range upstream {
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 {
				if call, ok := spec.Values[0].(*ast.CallExpr); ok && name(call.Fun) == "New" && len(call.Args) == 1 {
					texts[spec.Names[0].Name] = call.Args[0]
				}
			}
			return true
		})
	}
	for _, file := range upstream {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				if name(n.Key) == "Reason" {
					add(n.Value)
				}
			case *ast.FuncDecl:
				if n.Name.Name == "reason" {
					returns(n, func(e ast.Expr) {
						if call, ok := e.(*ast.CallExpr); ok { // errX.Error()
							e = texts[name(call.Fun.(*ast.SelectorExpr).X)]
						}
						add(e)
					})
				}
			}
			return true
		})
	}
	for _, file := range append(s.files("internal/proxy"), s.files("internal/target")...) {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if name(n.Fun) == "refuse" {
					add(n.Args[len(n.Args)-1])
				}
			case *ast.FuncDecl:
				if slices.Contains([]string{"readBody", "Join"}, n.Name.Name) || n.Name.Name == "Error" && n.Recv != nil {
					returns(n, func(e ast.Expr) {
						if call, ok := e.(*ast.CallExpr); ok && len(call.Args) > 0 {
							add(call.Args[0]) // errors.New, fmt.Errorf, fmt.Sprintf
						}
					})
				}
			}
			return true
		})
	}
	return reasons
}

// warnings are the fixed messages that are logged at warn or error.
func (s source) warnings() (messages []string) {
	s.t.Helper()
	for _, dir := range []string{"cmd/anthropic-oauth-proxy", "internal/proxy", "internal/server"} {
		for _, file := range s.files(dir) {
			ast.Inspect(file, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok && slices.Contains([]string{"Warn", "Error"}, name(call.Fun)) && len(call.Args) > 0 {
					if message := text(call.Args[0]); message != "" {
						messages = append(messages, message)
					}
				}
				return true
			})
		}
	}
	return messages
}

func returns(f *ast.FuncDecl, do func(ast.Expr)) {
	ast.Inspect(f, func(n ast.Node) bool {
		if r, ok := n.(*ast.ReturnStmt); ok {
			for _, result := range r.Results {
				do(result)
			}
		}
		return true
	})
}

// name is the last part of an identifier or selector.
func name(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

// text is the value of a string literal, or "".
func text(e ast.Expr) string {
	if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
		if s, err := strconv.Unquote(lit.Value); err == nil {
			return s
		}
	}
	return ""
}

// known is everything in the facts, for a quick look whether a name exists at all.
func (f facts) known() map[string]bool {
	all := map[string]bool{}
	for _, names := range f {
		for _, n := range names {
			all[n] = true
		}
	}
	return all
}
