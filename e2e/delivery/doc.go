// Package delivery walks the road from this source tree to a running pod, without a network: ko builds the image on a base made
// here and pushes it to a registry in this process, Kustomize renders k8s/, ko resolves it, the Kubernetes libraries judge every
// object, and runc runs the image under the restrictions that the manifest asks for.
//
// Run them with -count=1: `go test` does not notice that k8s/ or the command has changed, since both are outside of this module.
//
// There is no code here, only tests. What the road needs stands in files of its own:
//
//	tools_test.go        the repository, a copy of it, and ko
//	registry_test.go     the registry and the base image
//	ko_test.go           running .github/resolve.sh
//	render_test.go       rendering k8s/ and decoding it strictly
//	pod_linux_test.go    a pod's stand-in: bundle, runc, cgroup
//	netns_linux_test.go  a network namespace with nothing but loopback
package delivery
