// Package config is the configuration of a rack agent: one struct, its defaults, and what makes it valid. It is
// read from YAML; an unknown key is an error. Nothing here reads the environment or touches anything but the file.
package config
