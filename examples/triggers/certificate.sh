#!/bin/sh
# Makes a certificate for triggers.localhost that nobody vouches for: enough for this machine.
# Usage: certificate.sh [DIRECTORY]
set -eu
dir=${1:-/tmp/triggers-tls}
mkdir -p "$dir"
umask 077
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 \
    -subj /CN=triggers.localhost -addext 'subjectAltName=DNS:triggers.localhost,DNS:off.triggers.localhost' \
    -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null
echo "$dir/cert.pem"
