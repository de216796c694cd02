#!/bin/bash
# Baskets.

set -eu

# The most things.
LIMIT=10
readonly NAME=basket
export COLOUR=red

# Adds.
add() {
  local inner=1
  echo "$1"
  helper "$inner"
}

function helper {
  add 1
}

add 2
