# Sourced by `run`: what a step is.

# Runs a command under a heading and says how long it took.
step() {
  local name=$1 begun=$SECONDS
  shift
  printf '\n== %s: %s\n' "$name" "$*"
  "$@" || { printf '== %s FAILED after %s s\n' "$name" $((SECONDS - begun)); exit 1; }
  printf '== %s: ok, %s s\n' "$name" $((SECONDS - begun))
}

# A command that README gives must stand there as it is run here.
in_readme() {
  grep -qF -- "$1" README.md || { echo "README.md does not give the command: $1"; exit 1; }
}
