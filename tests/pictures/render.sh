#!/usr/bin/env bash
# Renders docs/pictures/*.d2 as SVG with the pinned d2, `make pictures`. Each SVG
# ends in the checksum of its source and of the tool's version, by which a test
# sees that a picture is stale (tests/docs/pictures_test.go).
set -euo pipefail
cd "$(dirname "$0")/../.."
version=$(sed -n 's/^[[:space:]]*oss\.terrastruct\.com\/d2 \(v[^ ]*\).*/\1/p' tests/pictures/go.mod)
d2=$(mktemp -d)/d2
trap 'rm -rf "$(dirname "$d2")"' EXIT
(cd tests/pictures && go build -o "$d2" oss.terrastruct.com/d2)
for source in docs/pictures/*.d2; do
  picture=${source%.d2}.svg
  # Light colours, and dark ones where the reader prefers them.
  "$d2" --layout dagre --theme 0 --dark-theme 200 --pad 16 "$source" "$picture"
  chmod 0644 "$picture"
  sum=$( (echo "$version"; cat "$source") | sha256sum | cut -d ' ' -f 1)
  printf '\n<!-- made by make pictures: %s -->\n' "$sum" >> "$picture"
done
