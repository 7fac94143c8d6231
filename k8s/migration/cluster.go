package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// kubectl runs kubectl. So it uses the cluster, account and rights of the person who runs this command.
func (m *migration) kubectl(ctx context.Context, args ...string) ([]byte, error) {
	const limit = 15 * time.Second // kubectl itself tries for minutes if the cluster is unreachable
	if m.kubeContext != "" {
		args = append([]string{"--context=" + m.kubeContext}, args...)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
	defer cancel()
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil {
		return out, nil
	}
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	switch last := lines[len(lines)-1]; {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case last != "":
		err = errors.New(last)
	}
	return nil, fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), err)
}

type condition struct{ Type, Status string }

// An object is the part of a Kubernetes object that matters here.
type object struct {
	Kind     string
	Metadata struct {
		Name                string
		Labels, Annotations map[string]string
	}
	Spec struct {
		Containers []struct{ Name, Image string }
	}
	Status struct {
		Conditions        []condition
		ContainerStatuses []struct{ RestartCount int }
	}
}

// ref is kubectl's name for the object.
func (o *object) ref() string { return strings.ToLower(o.Kind) + "/" + o.Metadata.Name }

func (o *object) ready() bool {
	return slices.Contains(o.Status.Conditions, condition{"Ready", "True"})
}

func (o *object) restarts() (n int) {
	for _, c := range o.Status.ContainerStatuses {
		n += c.RestartCount
	}
	return n
}

// foreign reports whether an object comes from neither k8s/ nor Kubernetes itself nor a Deployment.
func (o *object) foreign() bool {
	return o.Kind != "Pod" && o.Kind != "Namespace" && o.Metadata.Labels["app.kubernetes.io/name"] != newObject &&
		o.ref() != "configmap/kube-root-ca.crt" && o.ref() != "serviceaccount/default"
}

// A cluster holds the objects in our namespace, and the ids of the tailnet devices that the operator made for our Service.
type cluster struct {
	objects  []object
	operator []string
}

func (m *migration) readCluster(ctx context.Context) (*cluster, error) {
	out, err := m.kubectl(ctx, "get", "namespace,deployment,pod,service,configmap,secret,serviceaccount", "--namespace="+namespace, "--output=json")
	if err != nil {
		return nil, err
	}
	var list struct{ Items []object }
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("read what kubectl prints: %w", err)
	}
	c := &cluster{objects: list.Items}
	// The operator keeps the id in a Secret that also has the device's private key, so read only the id.
	out, err = m.kubectl(ctx, "get", "secret", "--all-namespaces",
		"--selector=tailscale.com/managed=true,tailscale.com/parent-resource-type=svc,tailscale.com/parent-resource="+newObject+",tailscale.com/parent-resource-ns="+namespace,
		`--output=jsonpath={range .items[*]}{.data.device_id}{"\n"}{end}`)
	for line := range strings.Lines(string(out)) {
		if id, err := base64.StdEncoding.DecodeString(strings.TrimSpace(line)); err == nil && len(id) > 0 {
			c.operator = append(c.operator, string(id))
		}
	}
	return c, err
}

func (c *cluster) find(ref string) *object {
	if i := slices.IndexFunc(c.objects, func(o object) bool { return o.ref() == ref }); i >= 0 {
		return &c.objects[i]
	}
	return nil
}

// oldPods returns the pods of the Deployment with the sidecar. It knows them by their names.
func (c *cluster) oldPods() (pods []*object) {
	for i := range c.objects {
		if o := &c.objects[i]; strings.HasPrefix(o.ref(), "pod/"+oldObject+"-") {
			pods = append(pods, o)
		}
	}
	return pods
}
