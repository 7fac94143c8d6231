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
)

// kubectl is the cluster as kubectl shows it, so that the cluster, the account and its rights are the operator's own.
type kubectl struct{ context string }

func (k kubectl) run(ctx context.Context, args ...string) ([]byte, error) {
	if k.context != "" {
		args = append([]string{"--context=" + k.context}, args...)
	}
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil, errors.New("kubectl is not on the PATH: install it, or enter the dev shell (nix develop)")
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// get decodes one object or list; what does not exist is no error and leaves found false.
func (k kubectl) get(ctx context.Context, into any, args ...string) (found bool, err error) {
	out, err := k.run(ctx, append(append([]string{"get"}, args...), "--ignore-not-found", "--output=json", "--request-timeout=15s")...)
	if err != nil || len(bytes.TrimSpace(out)) == 0 {
		return false, err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return false, fmt.Errorf("kubectl get %s: %w", strings.Join(args, " "), err)
	}
	return true, nil
}

type object struct {
	Metadata struct {
		Name        string
		Labels      map[string]string
		Annotations map[string]string
	}
}

type condition struct{ Type, Status string }

type deployment struct {
	object
	Spec struct {
		Selector struct{ MatchLabels map[string]string }
		Template struct{ Spec podSpec }
	}
	Status struct{ ReadyReplicas, UpdatedReplicas, Replicas int }
}

type named struct{ Name string }

type container struct {
	Name, Image string
	Env         []struct {
		ValueFrom struct{ SecretKeyRef, ConfigMapKeyRef named }
	}
	EnvFrom []struct{ SecretRef, ConfigMapRef named }
}

type podSpec struct {
	ServiceAccountName         string
	ImagePullSecrets           []named
	Containers, InitContainers []container
	Volumes                    []struct {
		ConfigMap named
		Secret    struct{ SecretName string }
	}
}

type pod struct {
	object
	Status struct {
		Conditions        []condition
		ContainerStatuses []struct {
			Name         string
			RestartCount int
		}
	}
}

func (p pod) ready() bool { return slices.Contains(p.Status.Conditions, condition{"Ready", "True"}) }

func (p pod) restarts(container string) (n int) {
	for _, c := range p.Status.ContainerStatuses {
		if container == "" || c.Name == container {
			n += c.RestartCount
		}
	}
	return n
}

type service struct {
	object
	Spec struct {
		ClusterIP string
		Ports     []struct{ Port int }
		Selector  map[string]string
	}
	Status struct{ Conditions []condition }
}

// pods lists what a Deployment's selector selects.
func (k kubectl) pods(ctx context.Context, d deployment) ([]pod, error) {
	var selector []string
	for key, value := range d.Spec.Selector.MatchLabels {
		selector = append(selector, key+"="+value)
	}
	slices.Sort(selector)
	var list struct{ Items []pod }
	_, err := k.get(ctx, &list, "pods", "--namespace="+namespace, "--selector="+strings.Join(selector, ","))
	return list.Items, err
}

// references names what a pod uses and nothing else in the namespace is named after: the objects that go with it.
func (d deployment) references() []string {
	var refs []string
	add := func(kind, name string) {
		if ref := kind + "/" + name; name != "" && name != "default" && name != "kube-root-ca.crt" && !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	spec := d.Spec.Template.Spec
	for _, v := range spec.Volumes {
		add("configmap", v.ConfigMap.Name)
		add("secret", v.Secret.SecretName)
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, e := range c.Env {
			add("configmap", e.ValueFrom.ConfigMapKeyRef.Name)
			add("secret", e.ValueFrom.SecretKeyRef.Name)
		}
		for _, e := range c.EnvFrom {
			add("configmap", e.ConfigMapRef.Name)
			add("secret", e.SecretRef.Name)
		}
	}
	for _, s := range spec.ImagePullSecrets {
		add("secret", s.Name)
	}
	add("serviceaccount", spec.ServiceAccountName)
	return refs
}

// oldObjects names everything that belongs to the old pod, the Deployment last: as long as it exists, the list can be made.
func (k kubectl) oldObjects(ctx context.Context, old deployment, now *deployment) ([]string, error) {
	var list struct{ Items []service }
	if _, err := k.get(ctx, &list, "services", "--namespace="+namespace); err != nil {
		return nil, err
	}
	var objects []string
	for _, s := range list.Items {
		selects := len(s.Spec.Selector) > 0
		for key, value := range s.Spec.Selector {
			selects = selects && old.Spec.Selector.MatchLabels[key] == value
		}
		if selects && s.Metadata.Name != newObject {
			objects = append(objects, "service/"+s.Metadata.Name)
		}
	}
	for _, ref := range old.references() {
		if now == nil || !slices.Contains(now.references(), ref) {
			objects = append(objects, ref)
		}
	}
	return append(objects, "deployment/"+oldObject), nil
}

// operatorDevices are the ids of the tailnet devices that the operator made for our Service. The operator keeps them in a
// Secret beside the device's private key: only the id is asked for.
func (k kubectl) operatorDevices(ctx context.Context) ([]string, error) {
	out, err := k.run(ctx, "get", "secrets", "--all-namespaces",
		"--selector=tailscale.com/managed=true,tailscale.com/parent-resource-type=svc,tailscale.com/parent-resource="+newObject+",tailscale.com/parent-resource-ns="+namespace,
		`--output=jsonpath={range .items[*]}{.data.device_id}{"\n"}{end}`, "--request-timeout=15s")
	var ids []string
	for line := range strings.Lines(string(out)) {
		if id, decodeErr := base64.StdEncoding.DecodeString(strings.TrimSpace(line)); decodeErr == nil && len(id) > 0 {
			ids = append(ids, string(id))
		}
	}
	return ids, err
}
