#!/usr/bin/env bash
# Installs what Cohort builds and runs with: one apt-get install of Debian 12 packages. Does nothing where all of
# them are there.
#   tools/setup.sh            what Cohort needs
#   tools/setup.sh --peers    also what `cohort bench collectives` and `transfer` compare it with, where they are found
set -euo pipefail

packages=(
  # build
  build-essential cmake ninja-build ccache pkg-config git
  # launch and communication
  openmpi-bin libopenmpi-dev libucx-dev libhwloc-dev
  # computation
  libdnnl-dev
  # parity over hosts
  libisal-dev
  # services, configs, files
  libgrpc++-dev libprotobuf-dev libprotoc-dev protobuf-compiler protobuf-compiler-grpc libabsl-dev
  prometheus-cpp-dev libcpp-httplib-dev libspdlog-dev libyaml-cpp-dev nlohmann-json3-dev libcli11-dev libpcre2-dev libicu-dev
  # tests and checks
  libgtest-dev libgmock-dev clang-format clang-tidy python3
  # a real etcd for the tests of the coordinator's state in it
  etcd-server
  # the testbed: namespaces, bridges, shaped links
  iproute2 iputils-ping util-linux
  # the bundle's test: a shell that needs no libraries
  busybox-static
  # the quickstart's text
  fortunes fortunes-min
)
case "${1:-}" in
  --peers) packages+=(libgloo-dev ucx-utils) ;;
  "") ;;
  *) sed -n '2,5p' "$0"; exit 2 ;;
esac

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "setup: all ${#packages[@]} packages are installed"
  exit 0
fi

sudo=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "setup: ${#missing[@]} packages are missing (${missing[*]}) and neither root nor sudo is at hand to install them" >&2; exit 1; }
  sudo=(sudo)
fi
echo "setup: installing ${#missing[@]} packages: ${missing[*]}"
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
echo "setup: done"
