# Cargo: a new crate with a test, built, run and tested.
# needs: gcc
# limit: 300
set -e
# Whoever runs the tests says which cargo; rustc lies beside it.
PATH=${CARGO%/*}:$PATH
export CARGO_TARGET_DIR=$PWD/target CARGO_INCREMENTAL=0 CARGO_HOME=$PWD/home CARGO_NET_OFFLINE=true CARGO_TERM_COLOR=never
unset RUSTC_WRAPPER RUSTFLAGS
mkdir -p crate/src; cd crate
printf '[package]\nname = "small"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n' >Cargo.toml
cat >src/main.rs <<'R'
use std::collections::BTreeMap;
use std::thread;

fn count(text: &str) -> BTreeMap<char, usize> {
    text.chars().fold(BTreeMap::new(), |mut all, c| { *all.entry(c).or_default() += 1; all })
}

fn main() {
    let threads: Vec<_> = (0..8).map(|n| thread::spawn(move || count(&"hello".repeat(n)))).collect();
    for thread in threads {
        println!("{:?}", thread.join().unwrap());
    }
}

#[test]
fn counts() {
    assert_eq!(count("aab").get(&'a'), Some(&2));
}
R
cargo run -q; cargo test -q 2>/dev/null | grep -c 'test result: ok'; ls "$CARGO_TARGET_DIR/debug" | grep -x small
