#!/usr/bin/env bash
# The only build door. Every step says what it does, is safe to repeat, and skips what is done.
set -euo pipefail
CALLER="$PWD"
cd "$(dirname "${BASH_SOURCE[0]}")"
ROOT="$PWD"

# Everything that is built or fetched lies outside the clone, so that a second clone finds it.
CACHE="${INKBLOOM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/inkbloom}"
TARGET="${CARGO_TARGET_DIR:-$CACHE/target}"
WASM_TARGET="$TARGET/wasm" # its own folder: the compiler may be another one
TOOLS="$CACHE/tools"
VENV="$CACHE/venv"
export CARGO_TARGET_DIR="$TARGET"
export PATH="$TOOLS/bin:$PATH"
mkdir -p "$CACHE"

WASM=wasm32-unknown-unknown

usage() {
  cat <<'EOF'
./build.sh setup         install what is missing: wasm target, wasm-bindgen, npm packages, Chromium for the tests
./build.sh wasm          build the WebAssembly and the npm package
./build.sh serve         build what is missing, serve the page, print its address (PORT=8000)
./build.sh site [DIR]    write the page as a folder for any static host (./site): hashed names, .br and .gz beside
./build.sh check         formatting, lints (native and wasm), types, layering
./build.sh test          everything: setup, check, Rust, parity, wasm, training recipe, browser
./build.sh examples      build what is missing, try every folder of examples/ with its bundler (or those named)
EOF
}

say() { printf '\n== %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }
die() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }

# The command line, which `cargo test --workspace` builds.
inkbloom() { "$TARGET/debug/inkbloom" "$@"; }

# --- setup -------------------------------------------------------------------------------------------

need_programs() {
  have cargo || die "there is no cargo; install Rust with rustup (https://rustup.rs)"
  have node || die "there is no node; install Node.js 20 or newer"
  have npm || die "there is no npm; it comes with Node.js"
}

# cargo for the wasm target: rustup's own, or, where rustup cannot fetch the target, Debian's compiler with
# a standard library built from Debian's sources.
cargo_wasm() {
  if [ -n "$(rustup target list --installed 2>/dev/null | grep -x $WASM)" ]; then
    cargo "$@"
  else
    cargo +wasm-debian "$@"
  fi
}

setup_wasm_target() {
  if rustup target list --installed 2>/dev/null | grep -qx $WASM; then return; fi
  if rustup toolchain list 2>/dev/null | grep -q '^wasm-debian' && cargo +wasm-debian --version >/dev/null 2>&1; then return; fi
  say "Adding the target $WASM"
  if rustup target add $WASM; then return; fi
  say "rustup cannot fetch it; building the target's standard library with Debian's compiler"
  have apt-get || die "rustup cannot fetch the target $WASM, and there is no apt-get for Debian's; give this machine access to rustup's server"
  as_root apt-get update -q
  as_root apt-get install -qy --no-install-recommends rustc-web cargo-web rust-web-src rust-web-clippy
  local sysroot work host
  sysroot="$(/usr/bin/rustc --print sysroot)"
  host="$(rustc -vV | sed -n 's/^host: //p')"
  work="$(mktemp -d)"
  mkdir "$work/src"
  printf '[package]\nname = "empty"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n' >"$work/Cargo.toml"
  : >"$work/src/lib.rs"
  (cd "$work" && RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$work/target" /usr/bin/cargo build --release \
    -Z build-std=std,panic_abort,proc_macro,test --target $WASM)
  as_root mkdir -p "$sysroot/lib/rustlib/$WASM/lib" "$sysroot/lib/rustlib/$host/bin"
  find "$work/target/$WASM/release/deps" -name 'lib*.rlib' ! -name 'libempty*' -print0 |
    xargs -0 -I{} cp {} "$work/"
  as_root cp "$work"/lib*.rlib "$sysroot/lib/rustlib/$WASM/lib/"
  # Debian's link to its linker dangles in this package; rustup's toolchain brings the same one.
  as_root ln -sfn "$(rustc --print sysroot)/lib/rustlib/$host/bin/rust-lld" "$sysroot/lib/rustlib/$host/bin/rust-lld"
  rm -rf "$work"
  rustup toolchain link wasm-debian "$sysroot"
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

setup_wasm_bindgen() {
  local version
  version="$(grep -A1 '^name = "wasm-bindgen"$' Cargo.lock | sed -n 's/^version = "\(.*\)"/\1/p')"
  if [ "$(wasm-bindgen --version 2>/dev/null)" = "wasm-bindgen $version" ]; then return; fi
  say "Installing wasm-bindgen-cli $version"
  # Without the TLS of its test runner, which is not used here.
  CARGO_TARGET_DIR="$TARGET/tools" cargo install --quiet wasm-bindgen-cli --version "$version" --no-default-features --bin wasm-bindgen --root "$TOOLS"
}

setup_npm() {
  if [ pkg/node_modules/.package-lock.json -nt pkg/package-lock.json ]; then return; fi
  say "Installing npm packages"
  (cd pkg && npm ci --no-audit --no-fund --loglevel=error)
  touch pkg/node_modules/.package-lock.json
}

setup_chromium() {
  if [ -n "${CHROMIUM:-}" ] || have chromium || have chromium-browser || have google-chrome || have google-chrome-stable; then return; fi
  say "Installing Chromium for the browser tests"
  if have apt-get; then
    as_root apt-get update -q
    as_root apt-get install -qy --no-install-recommends chromium || true
  fi
  have chromium || (cd pkg && npx playwright-core install chromium) ||
    die "no Chromium was found and none could be installed; install one and set CHROMIUM to its path"
}

# What building and serving need.
prepare() {
  need_programs
  setup_wasm_target
  setup_wasm_bindgen
  setup_npm
}

cmd_setup() {
  prepare
  setup_chromium
}

# --- wasm --------------------------------------------------------------------------------------------

cmd_wasm() {
  prepare
  say "Building the WebAssembly"
  CARGO_TARGET_DIR="$WASM_TARGET" cargo_wasm build --lib -p inkbloom --target $WASM --profile wasm
  local raw="$WASM_TARGET/$WASM/wasm/inkbloom.wasm" stamp="$WASM_TARGET/optimised.sha256" sum
  if grep -qa 'command_export' "$raw"; then
    die "the linker wraps every function that JavaScript calls in all static constructors: nothing calls __wasm_call_ctors (src/web/mod.rs)"
  fi
  sum="$(sha256sum "$raw" build.sh | sha256sum)"
  if [ ! -f pkg/wasm/inkbloom_bg.wasm ] || [ "$(cat "$stamp" 2>/dev/null)" != "$sum" ] || [ ! -f "$WASM_TARGET/optimised/inkbloom.js" ]; then
    say "Binding and optimising it"
    rm -rf "$WASM_TARGET/optimised" && mkdir -p "$WASM_TARGET/optimised"
    wasm-bindgen --target web --out-dir "$WASM_TARGET/optimised" --out-name inkbloom --remove-name-section "$raw"
    optimise "$WASM_TARGET/optimised/inkbloom_bg.wasm"
    printf '%s' "$sum" >"$stamp"
  fi
  rm -rf pkg/wasm && cp -r "$WASM_TARGET/optimised" pkg/wasm
  say "Building the npm package"
  (cd pkg && npm run --silent build)
}

optimise() {
  pkg/node_modules/.bin/wasm-opt -Oz --strip-debug --enable-simd --enable-bulk-memory --enable-nontrapping-float-to-int \
    --enable-sign-ext --enable-mutable-globals --enable-reference-types --enable-multivalue "$1" -o "$1.opt"
  mv "$1.opt" "$1"
}

# --- serve -------------------------------------------------------------------------------------------

cmd_serve() {
  cmd_wasm
  node www/serve.mjs
}

# --- site --------------------------------------------------------------------------------------------

cmd_site() {
  cmd_wasm
  say "Writing the site"
  (cd "$CALLER" && node "$ROOT/tools/site/build.mjs" ${1:+--out "$1"})
}

# --- check -------------------------------------------------------------------------------------------

cmd_check() {
  need_programs
  setup_wasm_target
  setup_wasm_bindgen
  setup_npm
  say "Formatting"
  cargo fmt --all --check
  say "Lints, native"
  cargo clippy --workspace --all-targets --quiet -- -D warnings
  say "Lints, wasm"
  CARGO_TARGET_DIR="$WASM_TARGET" cargo_wasm clippy --lib -p inkbloom --target $WASM --profile wasm --quiet -- -D warnings
  say "Types"
  [ -f pkg/wasm/inkbloom.d.ts ] || cmd_wasm
  (cd pkg && npm run --silent check)
  say "Layering"
  cargo test --workspace --quiet --test layering
}

# --- test --------------------------------------------------------------------------------------------

setup_python() {
  local want="tools/train/requirements.txt"
  have python3 || die "there is no python3; install Python 3.10 or newer"
  if [ -x "$VENV/bin/python" ] && cmp -s "$want" "$VENV/requirements.txt"; then return; fi
  say "Installing PyTorch, diffusers and transformers for the training recipe's tests"
  python3 -m venv "$VENV" || die "python3 cannot make a virtual environment; install its venv module (on Debian: python3-venv)"
  "$VENV/bin/pip" install --quiet --disable-pip-version-check -r "$want"
  cp "$want" "$VENV/requirements.txt"
}

# Tiny models for browsers, and what one must draw from a seed.
make_bundles() {
  local case
  export INKBLOOM_TEST_BUNDLES="$CACHE/test-bundles"
  local bundles="$INKBLOOM_TEST_BUNDLES"
  rm -rf "$bundles"
  for case in sticker_tiny sticker_straight sticker_kl_wide sticker_inpaint sd15_preview sd3_without_t5 flux_true_guidance animatediff_euler tokens_tiny; do
    inkbloom convert --from "tests/fixtures/pipeline/$case" --to "$bundles/$case" --dtype f32 >/dev/null 2>&1
  done
  # What the browser must draw from the same seed.
  inkbloom generate --model "$bundles/sticker_tiny" --prompt "3d emoji of a red apple" --steps 2 --seed 7 \
    --dump "$bundles/sticker_tiny/seed-7.safetensors" --out "$bundles/sticker_tiny/seed-7.png" 2>/dev/null
  # What moves of it, as the command line saves that.
  for case in webp png gif; do
    inkbloom animate --picture "$bundles/sticker_tiny/seed-7.png" --motion wobble --frames 8 --fps 10 --out "$bundles/sticker_tiny/wobble.$case" 2>/dev/null
  done
  for case in tokens hybrid; do
    inkbloom generate --model "$bundles/tokens_tiny" --prompt "3d emoji of a red apple" --way $case --seed 7 \
      --dump "$bundles/tokens_tiny/seed-7-$case.safetensors" --out "$bundles/tokens_tiny/seed-7-$case.png" 2>/dev/null
  done
  inkbloom convert --from tests/fixtures/autoregress/janus_pro --to "$bundles/janus_pro" --dtype f32 >/dev/null 2>&1
  inkbloom generate --model "$bundles/janus_pro" --prompt "a red fox and two apple tree" --seed 7 \
    --dump "$bundles/janus_pro/seed-7.safetensors" --out "$bundles/janus_pro/seed-7.png" 2>/dev/null
  inkbloom convert --from tests/fixtures/pipeline/glm_image --to "$bundles/glm_image" --dtype f32 >/dev/null 2>&1
  inkbloom generate --model "$bundles/glm_image" --prompt 'a red sign that says "OPEN"' --size 32x64 --steps 2 --seed 7 \
    --dump "$bundles/glm_image/seed-7.safetensors" --out "$bundles/glm_image/seed-7.png" 2>/dev/null
}

cmd_test() {
  cmd_setup
  setup_python
  cmd_wasm
  cmd_check
  say "Rust, and parity with the reference implementations"
  cargo test --workspace
  say "The training recipe, in small"
  (cd tools/train && nice "$VENV/bin/python" -m pytest -q tests)
  say "What convert writes, loaded by diffusers and transformers"
  INKBLOOM="$TARGET/debug/inkbloom" nice "$VENV/bin/python" -m pytest -q tools/reference
  say "The package and the page, in a browser"
  make_bundles
  node --test --test-concurrency=1 --test-reporter=spec tests/web/*.test.mjs
}

# --- examples ----------------------------------------------------------------------------------------

# Each in a bundler's dev server and as it builds it; they are downloaded, some hundred megabytes.
cmd_examples() {
  prepare
  setup_chromium
  cmd_wasm
  say "The command line, which makes the tiny models"
  cargo build --workspace --quiet
  make_bundles
  say "The examples"
  node examples/try.mjs "$@"
}

main() {
  case "${1:-}" in
    setup | wasm | serve | site | check | test | examples) "cmd_$1" "${@:2}" ;;
    *) usage; [ -z "${1:-}" ] || exit 2 ;;
  esac
}

# One line, so that a script that is edited while it runs is not read any further.
main "$@"; exit
