// Package monitoring checks that everything that k8s/monitoring and the documents name exists: metrics, labels, flags, keys, log
// fields and reasons in the running program and its source, objects in the manifests, recipes in the justfile, headings and files in
// the repository. promtool tests every alert. There are only tests here.
package monitoring
