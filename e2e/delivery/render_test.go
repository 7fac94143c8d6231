package delivery

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"gotest.tools/v3/assert"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/kustomize/kyaml/resid"
	"sigs.k8s.io/yaml"
)

// manifests is everything that k8s/ deploys: exactly one object of each of these kinds.
type manifests struct {
	namespace     *corev1.Namespace
	account       *corev1.ServiceAccount
	config        *corev1.ConfigMap
	service       *corev1.Service
	networkPolicy *networkingv1.NetworkPolicy
	deployment    *appsv1.Deployment
}

func (m manifests) pod() *corev1.PodTemplateSpec { return &m.deployment.Spec.Template }

func (m manifests) container() *corev1.Container { return &m.pod().Spec.Containers[0] }

// render runs `kubectl kustomize dir/k8s` and returns one YAML document per object. It leaves out the optional component
// k8s/monitoring, which has its own tests.
func render(dir string) ([]string, error) {
	objects, err := kustomize(filepath.Join(dir, "k8s"))
	if err != nil {
		return nil, err
	}
	optional := map[resid.ResId]bool{}
	if component := filepath.Join(dir, "k8s", "monitoring"); filesys.MakeFsOnDisk().IsDir(component) {
		added, err := kustomize(component)
		if err != nil {
			return nil, err
		}
		for _, object := range added.Resources() {
			optional[object.CurId()] = true
		}
	}
	var documents []string
	for _, object := range objects.Resources() {
		if optional[object.CurId()] {
			continue
		}
		document, err := object.AsYAML() // fails on a repeated field, which Kustomize accepts
		if err != nil {
			return nil, fmt.Errorf("k8s/: the %s %s: %w", object.GetKind(), object.GetName(), err)
		}
		documents = append(documents, string(document))
	}
	return documents, nil
}

func kustomize(dir string) (resmap.ResMap, error) {
	return krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
}

// decode is as strict as a kube-apiserver with strict field validation: it refuses unknown and repeated fields.
func decode(document string) (runtime.Object, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, networkingv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	object, _, err := decoder.Decode([]byte(document), nil, nil)
	if err != nil {
		return nil, fmt.Errorf("k8s/: the object of %q: %w", regexp.MustCompile(`(?m)^kind: .*$`).FindString(document), err)
	}
	return object, nil
}

// unmarshalStrict decodes what has no Kubernetes type here. It refuses misspelt fields, wrong upper or lower case, and repeated fields.
func unmarshalStrict(source []byte, into any) error {
	content, err := yaml.YAMLToJSONStrict(source)
	if err != nil {
		return err
	}
	problems, err := json.UnmarshalStrict(content, into)
	return errors.Join(append(problems, err)...)
}

// load renders and decodes dir/k8s.
func load(dir string) (manifests, error) {
	var m manifests
	documents, err := render(dir)
	if err != nil {
		return m, err
	}
	seen := map[string]bool{}
	for _, document := range documents {
		object, err := decode(document)
		if err != nil {
			return m, err
		}
		kind := object.GetObjectKind().GroupVersionKind().Kind
		if seen[kind] {
			return m, fmt.Errorf("k8s/ has two objects of the kind %s", kind)
		}
		seen[kind] = true
		switch object := object.(type) {
		case *corev1.Namespace:
			m.namespace = object
		case *corev1.ServiceAccount:
			m.account = object
		case *corev1.ConfigMap:
			m.config = object
		case *corev1.Service:
			m.service = object
		case *networkingv1.NetworkPolicy:
			m.networkPolicy = object
		case *appsv1.Deployment:
			m.deployment = object
		default:
			return m, fmt.Errorf("k8s/ deploys a %s, which the proxy does not need", kind)
		}
	}
	if len(seen) != 6 {
		return m, fmt.Errorf("k8s/ deploys %d kinds of objects, not 6: is a file missing under resources: in k8s/kustomization.yaml?", len(seen))
	}
	if n := len(m.pod().Spec.Containers) + len(m.pod().Spec.InitContainers); n != 1 {
		return m, fmt.Errorf("the pod has %d containers: the proxy is one container, without sidecars", n)
	}
	return m, nil
}

var loadOnce = sync.OnceValues(func() (manifests, error) { return load(repository) })

func rendered(t *testing.T) manifests {
	t.Helper()
	m, err := loadOnce()
	assert.NilError(t, err)
	return m
}
