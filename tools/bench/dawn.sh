#!/bin/sh
# A staged folder's run.sh: unpacks it and its other half, and races.
#   run.sh --out FOLDER [--other FOLDER] [--icd FILE] [--seconds N] [what dawn.mjs takes]
# FILE is a Vulkan driver's .json, where the loader would not find it; the other half is ../b unless named.
set -eu
here="$(cd "$(dirname "$0")" && pwd)"
other="$here/../b" out="$PWD" seconds=300
while [ $# -gt 0 ]; do
  case "$1" in
    --out) out="$2" ;;
    --other) other="$2" ;;
    --icd) export VK_DRIVER_FILES="$2" VK_ICD_FILENAMES="$2" ;;
    --seconds) seconds="$2" ;;
    *) break ;;
  esac
  shift 2
done
mkdir -p "$out"
out="$(cd "$out" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cp -r "$here/." "$work"
cp -r "$other/." "$work"
if command -v xz >/dev/null; then
  find "$work" -name '*.xz' -print0 | xargs -0 -n 1 -P 8 xz -d
else
  python3 - "$work" <<'PYTHON'
import lzma, pathlib, sys
for file in pathlib.Path(sys.argv[1]).rglob("*.xz"):
    file.with_suffix("").write_bytes(lzma.decompress(file.read_bytes()))
PYTHON
fi
chmod +x "$work/bin/node"
# Only what the machine lacks: an older library of ours must not stand before one of its own.
for library in "$work"/lib/*; do
  if ldconfig -p 2>/dev/null | grep -q "$(basename "$library") "; then rm "$library"; fi
done
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$work/lib"
echo "unpacked; node $("$work/bin/node" --version)"
timeout -k 5 "$((seconds + 30))" "$work/bin/node" "$work/tools/bench/dawn.mjs" --seconds "$seconds" --record "$out/dawn" "$@"
