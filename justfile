# The commands people type. `just` lists them; none does more than the command it shows.

_list:
    @just --list

# Format the code
fmt:
    cargo fmt --all

# Format and lints: what to run before a commit
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# All tests, or those whose names contain a text: just test g7_revoke
test name="":
    cargo test {{name}}

# One module of the integration tests: just it g7_revoke
it module *flags:
    cargo test --test it {{module}}:: -- {{flags}}

# The whole shop for a time, with an audit at its end: just demo 30s --chaos
demo time="30s" *flags:
    cargo demo -- --for {{time}} {{flags}}

# API documentation, with broken links denied
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# The book, shown while it is edited
book:
    mdbook serve docs

# Measurements beside raw librdkafka: just bench consume decode
bench *workloads="all":
    cargo run --release -p evenkeel-bench -- {{workloads}}

# Stripped release binaries with their debug information apart, in target/dist
dist:
    deploy/dist

# Everything that CI checks, from a clean checkout
ci:
    .ci/run

# The listing of the public API, so that a change to it shows in review
public-api:
    .ci/public-api

# Breaking changes of the published libraries since a tag: just semver v0.1.0
semver tag:
    cargo semver-checks -p evenkeel -p evenkeel-program -p evenkeel-ops --baseline-rev {{tag}}

# What takes longer, before a release: each feature alone, the public API, chaos on three seeds
ci-extended:
    .ci/extended
