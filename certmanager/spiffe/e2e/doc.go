// Package e2e tests certmanager/spiffe with SPIRE: make spire builds its server and agent from the
// module in tools and runs the test. That takes too long for the ordinary tests.
package e2e
