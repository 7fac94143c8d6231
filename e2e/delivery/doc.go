// Package delivery tests every step from this source tree to a running pod, without a network. ko builds the image on a base image
// made here and pushes it to a registry in this process. Kustomize renders k8s/, and ko resolves the image names. The Kubernetes
// libraries check every object. runc runs the image under the manifest's restrictions.
//
// Run the tests with -count=1: k8s/ and the command are outside of this module, so `go test` does not notice their changes.
//
// There are only tests here. Their helpers are in these files:
//
//	tools_test.go        the repository, a copy of it, and ko
//	registry_test.go     the registry and the base image
//	ko_test.go           running .github/resolve.sh
//	render_test.go       rendering k8s/ and decoding it strictly
//	pod_linux_test.go    a pod's stand-in: bundle, runc, cgroup
//	netns_linux_test.go  a network namespace with nothing but loopback
package delivery
