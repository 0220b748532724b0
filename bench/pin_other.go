//go:build !linux

package main

import "os/exec"

const (
	serverCore = iota
	loadCore
)

func placement() string {
	return "processes are bound to cores, and memory is measured, on Linux only: expect more noise and no memory rows here"
}

func startOn(_ int, cmd *exec.Cmd) error { return cmd.Start() }

func resident() (now, peak float64, err error) { return 0, 0, nil }
