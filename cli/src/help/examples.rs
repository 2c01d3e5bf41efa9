//! Examples of each command, for help texts and manual pages.

/// Examples of each command, by its path. The empty path is the tool itself.
///
/// A test parses every example, and requires one for each command.
pub(super) const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "publish",
        &[
            "evenkeel publish shop.order-cancelled.v1 -d order_id=o-1 -d reason='ordered twice'",
            "evenkeel publish shop.order-placed.v1 --from-file orders.jsonl --keep-going -o jsonl",
            "evenkeel consume shop.orders -e -J | jq -c .payload | evenkeel publish shop.order-placed.v1 -t copy.orders",
        ],
    ),
    (
        "consume",
        &[
            "evenkeel consume shop.orders",
            "evenkeel consume shop.orders --from -1h --until-end -o jsonl",
            "evenkeel consume shop.orders --filter key=o-1 --filter 'type=shop.order-*' -e -f '%T %k %s\\n'",
            "evenkeel consume shop.orders -p 3 --from -10 -e",
        ],
    ),
    (
        "topics list",
        &["evenkeel topics list", "evenkeel topics list -o jsonl"],
    ),
    ("topics describe", &["evenkeel topics describe shop.orders"]),
    (
        "topics create",
        &["evenkeel topics create shop.orders -p 12 -c retention.ms=604800000 --if-not-exists"],
    ),
    (
        "topics apply",
        &[
            "evenkeel topics apply --check",
            "evenkeel topics apply --execute",
            "evenkeel topics apply --file topics.json --execute -r 3",
        ],
    ),
    (
        "groups list",
        &[
            "evenkeel groups list",
            "evenkeel groups list --check -o jsonl",
        ],
    ),
    (
        "groups describe",
        &[
            "evenkeel groups describe payments",
            "evenkeel groups describe --group payments --check",
        ],
    ),
    ("groups members", &["evenkeel groups members payments"]),
    (
        "config show",
        &["evenkeel config show --origin --config prod.toml"],
    ),
    (
        "groups lag",
        &[
            "evenkeel groups lag",
            "evenkeel groups lag payments --max-age 5m --threshold 10000",
            "evenkeel groups lag --group payments --topic shop.orders --check",
        ],
    ),
    (
        "groups pause",
        &[
            "evenkeel groups pause payments --why 'the provider asked us to'",
            "evenkeel groups pause payments -t shop.orders -p 3 --why 'investigating a bad record'",
        ],
    ),
    (
        "groups resume",
        &["evenkeel groups resume payments --why 'the provider is back'"],
    ),
    (
        "groups skip",
        &["evenkeel groups skip payments --record shop.orders/3@4711 --why 'ticket 17'"],
    ),
    (
        "groups retry-now",
        &[
            "evenkeel groups retry-now payments --why 'the provider is repaired'",
            "evenkeel groups retry-now payments -t shop.orders --key customer-7 --why 'ticket 17'",
        ],
    ),
    (
        "groups rate",
        &[
            "evenkeel groups rate payments 50 --why 'the provider is slow today'",
            "evenkeel groups rate payments off --why 'the provider has recovered'",
        ],
    ),
    (
        "groups accept-loss",
        &["evenkeel groups accept-loss payments -t shop.orders --why 'they were test orders'"],
    ),
    (
        "groups topics",
        &[
            "evenkeel groups topics payments",
            "evenkeel groups topics payments --execute",
        ],
    ),
    (
        "groups history",
        &["evenkeel groups history payments --since -1d"],
    ),
    (
        "dlq list",
        &[
            "evenkeel dlq list",
            "evenkeel dlq list --group payments --since -1h --check",
        ],
    ),
    (
        "dlq show",
        &["evenkeel dlq show dlq.payments.shop.orders/0@17"],
    ),
    (
        "dlq export",
        &["evenkeel dlq export --group payments --class permanent > dead-letters.jsonl"],
    ),
    (
        "dlq replay",
        &[
            "evenkeel dlq replay --group payments",
            "evenkeel dlq replay --group payments --grep 'no stock' --rate 20 --execute",
            "evenkeel dlq replay --from-file dead-letters.jsonl --execute",
        ],
    ),
    (
        "dlq purge",
        &[
            "evenkeel dlq purge --group payments --all-replayed",
            "evenkeel dlq purge dlq.payments.shop.orders --before -30d --execute",
        ],
    ),
    (
        "parked list",
        &[
            "evenkeel parked list payments",
            "evenkeel parked list payments --by-cause",
            "evenkeel parked list --group payments --check",
        ],
    ),
    (
        "parked show",
        &["evenkeel parked show payments --key customer-7"],
    ),
    (
        "parked release",
        &["evenkeel parked release payments --key customer-7 --why 'ticket 17'"],
    ),
    (
        "parked drop",
        &["evenkeel parked drop payments --key customer-7 --why 'ticket 17'"],
    ),
    (
        "audit",
        &[
            "evenkeel audit payments --topic shop.orders --store sqlite:payments.db",
            "evenkeel audit --group payments --topic shop.orders --store sqlite:payments.db --from -1d --max-lag 1000",
        ],
    ),
    (
        "drill duplicates",
        &[
            "evenkeel drill duplicates --group payments --from -50",
            "evenkeel drill duplicates payments --execute --not-production",
        ],
    ),
    (
        "outbox relay",
        &["evenkeel outbox relay --store sqlite:orders.db --admin 127.0.0.1:9102"],
    ),
    (
        "outbox status",
        &["evenkeel outbox status --store sqlite:orders.db --max-age 1m"],
    ),
    (
        "store migrate",
        &[
            "evenkeel store migrate --store sqlite:orders.db",
            "evenkeel store migrate --store sqlite:orders.db --execute",
            "evenkeel store migrate --print",
        ],
    ),
    ("schemas list", &["evenkeel schemas list"]),
    (
        "schemas show",
        &["evenkeel schemas show shop.order-placed.v1"],
    ),
    (
        "schemas check",
        &[
            "evenkeel schemas check schemas/*.schema.json",
            "evenkeel consume shop.orders -e -n 100 | evenkeel schemas check shop.order-placed.v1",
        ],
    ),
    #[cfg(feature = "dev")]
    (
        "dev up",
        &["evenkeel dev up", "evenkeel dev up --kafka java -p 19092"],
    ),
    #[cfg(feature = "dev")]
    ("dev down", &["evenkeel dev down"]),
    #[cfg(feature = "dev")]
    ("dev status", &["evenkeel dev status -o json"]),
    (
        "completions",
        &["evenkeel completions bash > /etc/bash_completion.d/evenkeel"],
    ),
    (
        "man",
        &[
            "evenkeel man | man -l -",
            "evenkeel man --dir /usr/local/share/man/man1",
        ],
    ),
    ("topics", &["evenkeel topics apply --execute"]),
    ("groups", &["evenkeel groups lag"]),
    ("dlq", &["evenkeel dlq list"]),
    ("parked", &["evenkeel parked list payments"]),
    (
        "",
        &[
            #[cfg(feature = "dev")]
            "evenkeel dev up",
            "evenkeel topics apply --execute",
            "evenkeel tail shop.orders",
            "evenkeel groups lag --max-age 5m",
            "evenkeel dlq list --check",
        ],
    ),
];

/// The examples of the command at `path`.
pub(super) fn lines_of(path: &str) -> &'static [&'static str] {
    let mut all = EXAMPLES.iter();
    all.find(|(known, _)| *known == path)
        .map_or(&[], |(_, lines)| *lines)
}
