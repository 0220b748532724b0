// Package e2e proves certmanager's ACME source against Pebble. It is a module of its own,
// so that acmetest can be required without the rest of this repository.
package e2e
