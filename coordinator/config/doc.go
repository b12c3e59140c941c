// Package config is the configuration of one coordinator: a YAML file, its defaults and its checks. Unknown keys
// are errors. Nothing is read from the environment.
package config
