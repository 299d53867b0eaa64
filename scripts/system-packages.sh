#!/bin/sh
# What the tests need beyond pip. Installs it where it may (root, with apt-get); elsewhere says what is left out.
# In CI nothing may be left out: there it fails instead.
export DEBIAN_FRONTEND=noninteractive

missing() {
    [ -f /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz ] || echo dataset-fashion-mnist
    command -v chromium >/dev/null || echo chromium
}

left_out() {
    case $1 in
        dataset-fashion-mnist) echo "the patients in tests/gallery that train on Fashion-MNIST" ;;
        chromium) echo "the tests that open report.html in a browser" ;;
    esac
}

[ -n "$(missing)" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing" $(missing)
    apt-get -qq update
    for package in $(missing); do
        apt-get -qq install -y --no-install-recommends "$package" >/dev/null
    done
fi

[ -n "$(missing)" ] || exit 0

for package in $(missing); do
    echo "No $package here. Left out: $(left_out "$package")."
done
echo "This would install it: sudo apt-get update && sudo apt-get install -y --no-install-recommends" $(missing)
[ -z "$CI" ]
