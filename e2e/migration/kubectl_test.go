package migration

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
)

const swappedAt = "anthropic-oauth-proxy.migration/swapped-at"

// A call is one run of kubectl, and what it came to.
type call struct {
	Args, Env []string
}

type answer struct {
	Out, Err string
	Code     int
}

// fakeKubectl hands its arguments to the test and repeats the answer.
func fakeKubectl() int {
	b, _ := json.Marshal(call{os.Args[1:], os.Environ()})
	resp, err := http.Post(os.Getenv("FAKE_CLUSTER"), "application/json", bytes.NewReader(b))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 99
	}
	defer resp.Body.Close()
	var a answer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 99
	}
	fmt.Fprint(os.Stdout, a.Out)
	fmt.Fprint(os.Stderr, a.Err)
	return a.Code
}

// A cluster holds objects by kind/name, as JSON would.
type cluster struct {
	mu      sync.Mutex
	objects map[string]map[string]any
	ids     []string          // of the operator's devices
	fails   map[string]answer // by a part of the command line
	onExec  func(*cluster)
	calls   []call
	writes  []string
}

type obj = map[string]any

func meta(name string, labels obj) obj {
	return obj{"name": name, "labels": labels, "annotations": obj{}}
}

func newCluster() *cluster {
	c := &cluster{ids: []string{newID}, fails: map[string]answer{}, objects: map[string]map[string]any{}}
	oldLabels := obj{"app": bare}
	env := func(name, secret string) obj {
		return obj{"name": name, "valueFrom": obj{"secretKeyRef": obj{"name": secret, "key": name}}}
	}
	c.objects["deployment/"+bare] = obj{"metadata": meta(bare, nil), "spec": obj{
		"selector": obj{"matchLabels": oldLabels},
		"template": obj{"spec": obj{
			"serviceAccountName": bare,
			"imagePullSecrets":   []obj{{"name": "ghcr-pull-secret"}},
			"containers": []obj{
				{"name": "proxy", "image": "ghcr.io/basher83/anthropic-oauth-proxy:latest"},
				{"name": "tailscaled", "image": "ghcr.io/tailscale/tailscale:stable", "env": []obj{env("TS_AUTHKEY", "tailscale-authkey")}},
			},
			"volumes": []obj{{"name": "config", "configMap": obj{"name": bare + "-config"}}, {"name": "tailscale-socket", "emptyDir": obj{}}},
		}},
	}, "status": obj{"replicas": 1, "readyReplicas": 1, "updatedReplicas": 1}}
	c.objects["pod/old-1"] = obj{"metadata": meta("old-1", oldLabels), "status": obj{
		"conditions":        []obj{{"type": "Ready", "status": "True"}},
		"containerStatuses": []obj{{"name": "proxy", "restartCount": 0}, {"name": "tailscaled", "restartCount": 0}},
	}}
	c.objects["service/"+bare] = obj{"metadata": meta(bare, nil), "spec": obj{"clusterIP": "10.96.0.7", "selector": oldLabels, "ports": []obj{{"port": 80}}}}
	newLabels := obj{"app.kubernetes.io/name": "oauth-proxy"}
	c.objects["deployment/oauth-proxy"] = obj{"metadata": meta("oauth-proxy", newLabels), "spec": obj{
		"selector": obj{"matchLabels": newLabels},
		"template": obj{"spec": obj{"serviceAccountName": "oauth-proxy", "volumes": []obj{{"configMap": obj{"name": "oauth-proxy-abc"}}}}},
	}, "status": obj{"replicas": 1, "readyReplicas": 1, "updatedReplicas": 1}}
	c.objects["service/oauth-proxy"] = obj{"metadata": obj{"name": "oauth-proxy", "labels": newLabels,
		"annotations": obj{"tailscale.com/expose": "true", "tailscale.com/hostname": bare}},
		"spec":   obj{"clusterIP": "10.96.0.8", "selector": newLabels, "ports": []obj{{"port": 8080}, {"port": 80}}},
		"status": obj{"conditions": []obj{{"type": "TailscaleProxyReady", "status": "True"}}}}
	c.objects["configmap/cilium-config"] = obj{"metadata": meta("cilium-config", nil), "data": obj{"bpf-lb-sock-hostns-only": "true", "kube-proxy-replacement": "true", "enable-envoy-config": "false"}}
	for _, name := range []string{"configmap/" + bare + "-config", "secret/tailscale-authkey", "secret/ghcr-pull-secret", "serviceaccount/" + bare, "namespace/" + bare} {
		_, short, _ := strings.Cut(name, "/")
		c.objects[name] = obj{"metadata": meta(short, nil)}
	}
	c.onExec = func(c *cluster) { c.restarts("proxy", 1) }
	return c
}

// at walks into an object: cluster.at("service/oauth-proxy", "spec").
func (c *cluster) at(name string, path ...string) obj {
	o := c.objects[name]
	for _, p := range path {
		o = o[p].(obj)
	}
	return o
}

func (c *cluster) annotate(name, key, value string) {
	c.at(name, "metadata", "annotations")[key] = value
}

func (c *cluster) restarts(container string, n int) {
	for _, s := range c.at("pod/old-1", "status")["containerStatuses"].([]obj) {
		if s["name"] == container {
			s["restartCount"] = n
		}
	}
}

// gone takes objects out of the cluster.
func (c *cluster) gone(names ...string) {
	for _, n := range names {
		delete(c.objects, n)
	}
}

func (c *cluster) changed() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.writes)
}

func (c *cluster) serve(rw http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	var in call
	a := answer{Code: 98, Err: "unreadable call"}
	if json.Unmarshal(b, &in) == nil {
		c.mu.Lock()
		c.calls = append(c.calls, in)
		a = c.kubectl(in.Args)
		c.mu.Unlock()
	}
	_ = json.NewEncoder(rw).Encode(a)
}

// kubectl knows the few forms that the command uses, and refuses any other.
func (c *cluster) kubectl(args []string) answer {
	line := strings.Join(args, " ")
	for part, a := range c.fails {
		if strings.Contains(line, part) {
			return a
		}
	}
	var words []string
	flags := map[string]string{}
	for i, a := range args {
		if a == "--" {
			words = append(words, args[i:]...)
			break
		}
		if name, value, _ := strings.Cut(a, "="); strings.HasPrefix(a, "--") {
			flags[name] = value
		} else {
			words = append(words, a)
		}
	}
	if ns := flags["--namespace"]; ns != "" && ns != bare && ns != "kube-system" {
		return answer{Code: 1, Err: "wrong namespace " + ns}
	}
	switch {
	case line == "config current-context":
		return answer{Out: "talos-prod-01\n"}
	case words[0] == "get" && words[1] == "secrets":
		if flags["--all-namespaces"] != "" || !strings.HasPrefix(flags["--output"], "jsonpath=") || !strings.Contains(flags["--selector"], "tailscale.com/parent-resource=oauth-proxy,") {
			return answer{Code: 1, Err: "unexpected look at secrets: " + line}
		}
		out := "\n" // the operator's config Secret has the labels too, but no device_id
		for _, id := range c.ids {
			out += base64.StdEncoding.EncodeToString([]byte(id)) + "\n"
		}
		return answer{Out: out}
	case words[0] == "get" && flags["--output"] == "name":
		return answer{Out: "configmap/kube-root-ca.crt\nserviceaccount/default\nservice/oauth-proxy\nrole.rbac.authorization.k8s.io/tailscale-state\n"}
	case words[0] == "get" && (words[1] == "pods" || words[1] == "services"):
		kind, items := strings.TrimSuffix(words[1], "s"), []obj{}
		for name, o := range c.objects {
			if strings.HasPrefix(name, kind+"/") && (kind == "service" || flags["--selector"] == "app="+bare) {
				items = append(items, o)
			}
		}
		return list(items)
	case words[0] == "get":
		o, ok := c.objects[strings.Join(words[1:], "/")]
		if !ok {
			return answer{}
		}
		b, _ := json.Marshal(o)
		return answer{Out: string(b)}
	case words[0] == "annotate" && len(words) == 4:
		c.writes = append(c.writes, strings.Join(words, " "))
		if key, ok := strings.CutSuffix(words[3], "-"); ok {
			delete(c.at(words[1]+"/"+words[2], "metadata", "annotations"), key)
		} else {
			key, value, _ := strings.Cut(words[3], "=")
			c.annotate(words[1]+"/"+words[2], key, value)
		}
		return answer{}
	case words[0] == "exec":
		c.writes = append(c.writes, "exec "+words[1]+" "+flags["--container"]+" "+strings.Join(words[3:], " "))
		c.onExec(c)
		return answer{}
	case words[0] == "delete" && len(words) == 2:
		c.writes = append(c.writes, strings.Join(words, " "))
		delete(c.objects, words[1])
		if words[1] == "deployment/"+bare {
			delete(c.objects, "pod/old-1")
		}
		return answer{}
	}
	return answer{Code: 1, Err: "this kubectl does not know: " + line}
}

func list(items []obj) answer {
	b, _ := json.Marshal(obj{"items": items})
	return answer{Out: string(b)}
}

// seen are the calls with text in their command line.
func (c *cluster) seen(text string) (calls []call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.calls {
		if strings.Contains(strings.Join(x.Args, " "), text) {
			calls = append(calls, x)
		}
	}
	return calls
}
