#!/bin/sh
# llama-batched-bench and llama-quantize from the llama-cpp-python source package, which holds the whole llama.cpp tree.
#   sh benchmarks/peers/build_llama.sh FOLDER        (needs cmake, ninja and a C++ compiler; three minutes on two cores)
# Without AMX: version 0.3.36 with it crashes on q4_0 (segmentation fault while it repacks), and is no faster in bf16.
set -eu
FOLDER=$1
BIN=${BIN:-.venv/bin}
mkdir -p "$FOLDER"
"$BIN/pip" download --quiet --no-binary llama-cpp-python --no-deps llama-cpp-python==0.3.36 -d "$FOLDER"
tar -C "$FOLDER" -xzf "$FOLDER"/llama_cpp_python-0.3.36.tar.gz
SOURCE=$FOLDER/llama_cpp_python-0.3.36
FLAGS=""
for flag in avx avx2 fma f16c bmi2 avx512f:AVX512 avx512_vbmi:AVX512_VBMI avx512_vnni:AVX512_VNNI avx512_bf16:AVX512_BF16; do
    name=${flag##*:}
    grep -qw "${flag%%:*}" /proc/cpuinfo && FLAGS="$FLAGS -DGGML_$(echo "$name" | tr a-z A-Z)=ON"
done
# shellcheck disable=SC2086
cmake -S "$SOURCE/vendor/llama.cpp" -B "$SOURCE/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=OFF $FLAGS \
    -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF
ninja -C "$SOURCE/build" llama-batched-bench llama-quantize
ln -sfn "$SOURCE/build/bin" "$FOLDER/bin"
