//! Exit codes do not depend on the reader of the output, and no output is lost silently.

use crate::shop::{Shop, orders, stock};
use std::fs::File;
use std::process::Stdio;
use tokio::process::Command;

/// A pipe whose reader has closed it.
fn left() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_ignore_departed_readers_and_full_disks_are_reported() {
    let shop = Shop::open().await;
    let bad = shop.file("bad.csv", "order_id,customer_id,lines\no-1,c-1,nothing\n");
    let bad = bad.to_string_lossy();
    type Case<'a> = (fn() -> Command, &'a [&'a str], i32);
    let cases: [Case<'_>; 6] = [
        (orders, &["place", "--customer", "c", "--line", "a:1:1"], 0),
        (orders, &["cancel", "o-1", "--reason", "r"], 0),
        (orders, &["import", &bad], 1),
        (stock, &["receive", "article-001", "5"], 0),
        (stock, &["fill", "--quantity", "1"], 0),
        (orders, &["place"], 2),
    ];
    for (program, args, expected) in cases {
        let mut cut = program();
        cut.stdout(left());
        let cut = shop.run(cut, args).await;
        assert_eq!(cut.code, Some(expected), "{args:?}: {cut}");
        let mut mute = program();
        mute.stderr(left());
        let mute = shop.run(mute, args).await;
        assert_eq!(mute.code, Some(expected), "{args:?}: {mute}");
        if mute.stdout.is_empty() {
            continue;
        }
        let mut full = program();
        let device = File::options().write(true).open("/dev/full");
        full.stdout(device.expect("Linux has it"));
        let full = shop.run(full, args).await;
        assert_eq!(full.code, Some(1), "{args:?}: {full}");
        for text in [
            "standard output cannot be written",
            "but it cannot be shown",
        ] {
            assert!(full.stderr.contains(text), "{args:?}: {full}");
        }
    }
}
