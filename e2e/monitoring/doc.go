// Package monitoring checks that k8s/monitoring and docs/runbook.md speak of the proxy as it is. Names are compared with what
// the running binary prints and serves, limits with what is deployed, and every alert is put to the test by promtool.
//
// There is no code here, only tests:
//
//	component_test.go  k8s/ with the component switched on, decoded strictly
//	rules_test.go      the alerts, and promtool
//	dashboard_test.go  the dashboard's shape and queries
//	scrape_test.go     a proxy that has seen every kind of traffic, and its /metrics
//	names_test.go      every series that rules and dashboard ask for is there
//	facts_test.go      what the program and its source know: flags, keys, states, reasons
//	runbook_test.go    the runbook against all of it
//
// Each check is a function that returns an error, so that badinput_test.go can show that it goes red and says what to do.
package monitoring
