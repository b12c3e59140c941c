// Package view shows answers: tables for people, JSON and YAML for programs, and a live picture of a flow.
package view
