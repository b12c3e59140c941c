#!/bin/sh
# Generates api/gen from api/proto with protoc (Debian: protobuf-compiler) and the plugins pinned in go.mod.
# Usage: api/generate.sh [OUTPUT]. OUTPUT defaults to api/gen.
set -eu
cd "$(dirname "$0")/.."
out=${1:-api/gen}
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build -o "$bin/protoc-gen-go" google.golang.org/protobuf/cmd/protoc-gen-go
go build -o "$bin/protoc-gen-connect-go" connectrpc.com/connect/cmd/protoc-gen-connect-go
mkdir -p "$out"
PATH="$bin:$PATH" protoc -I api/proto \
  --go_out="$out" --go_opt=module=github.com/farrier-project/farrier/api/gen \
  --connect-go_out="$out" --connect-go_opt=module=github.com/farrier-project/farrier/api/gen,simple \
  $(find api/proto -name '*.proto' | LC_ALL=C sort)
# The header names the protoc that happened to be installed; the code does not depend on it.
find "$out" -name '*.pb.go' -exec sed -i '/^\/\/ \tprotoc  *v/d' {} +
