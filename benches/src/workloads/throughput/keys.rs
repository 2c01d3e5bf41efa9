//! `keys`: the empty handler on 64 partitions with a million keys, compared with 12 partitions with
//! 10,000 keys.

use crate::spec::{Aim, Bound, Contestant, Data, Figure, Plan, Spec, Turn};

pub(crate) fn plan() -> Plan {
    let few = Data {
        records: 2_000_000,
        ..super::consume::DATA
    };
    let many = Data {
        partitions: 64,
        keys: 1_000_000,
        ..few
    };
    let contestant = |name, data| Contestant {
        name,
        data: Some(data),
    };
    Plan {
        title: "12 partitions with 10,000 keys beside 64 with a million, empty handler".to_owned(),
        unit: "messages/s",
        contestants: vec![
            contestant("few-keys", few),
            contestant("evenkeel", many),
            contestant("raw-many-keys", many),
        ],
        aims: vec![Aim::new(
            "evenkeel",
            Figure::RatioTo("few-keys"),
            Bound::AtLeast(0.85),
        )],
        runs: 3,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    let contestant = match spec.contestant.as_str() {
        "raw-many-keys" => "raw",
        _ => "evenkeel",
    };
    let spec = Spec {
        contestant: contestant.to_owned(),
        ..spec.clone()
    };
    super::consume::turn(&spec).await
}
