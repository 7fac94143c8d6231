// Package monitoring checks that what k8s/monitoring and the documents name is there: metrics, labels, flags, keys, log fields
// and reasons in the running program and its source, objects in the manifests, recipes in the justfile, headings and files in the
// repository. promtool puts every alert to the test. There is no code here, only tests.
package monitoring
