//! What upgraders say about a transaction, for people.

use std::time::{Duration, SystemTime};

use serde_json::Value;

/// A client for upgraders: plain HTTP, no proxy.
///
/// # Errors
/// Those of the library.
pub fn client(patience: Duration) -> reqwest::Result<reqwest::Client> {
    // Fails only when the program has chosen a provider already: then that one it is.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(patience).no_proxy().tls_certs_only([]).build()
}

/// The answer that tells most: of who works on it, else who will, else whose shard it is in, else who once did.
pub fn telling(explanations: Vec<Value>) -> Option<Value> {
    explanations.into_iter().max_by_key(|explanation| {
        let state = match explanation["state"].as_str() {
            Some("in-progress") => 4,
            Some("planned") => 3,
            Some("passed-over" | "not-looked-at") if explanation["in_this_shard"] == true => 2,
            Some("upgraded") => 1,
            _ => 0,
        };
        (state, explanation["history"].as_array().map_or(0, Vec::len))
    })
}

/// The explanation in sentences.
pub fn render(explanation: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut lines = vec![format!("transaction  {}", text(&explanation["txid"]))];
    let owner = text(&explanation["owner"]);
    let here = if explanation["in_this_shard"] == true { "this upgrader's" } else { "another upgrader's" };
    lines.push(format!("shard        {owner} ({here}; asked: {})", text(&explanation["shard"])));
    let mempool = if explanation["in_mempool"] == true { "yes" } else { "no" };
    lines.push(format!("in mempool   {mempool}"));
    lines.push(format!("state        {}", text(&explanation["state"])));
    if let Some(running) = explanation["running"].as_object() {
        let proving: Vec<String> = running["proving"].as_array().into_iter().flatten().map(text).collect();
        lines.push(format!(
            "doing        {}, {} of {} proofs done, proving {} ({:.1} s so far)",
            text(&running["kind"]),
            running["done"],
            running["of"],
            if proving.is_empty() { "nothing now".to_owned() } else { proving.join(", ") },
            running["seconds"].as_f64().unwrap_or_default(),
        ));
    }
    if let (Some(position), Some(planned)) = (explanation["position"].as_u64(), explanation["planned"].as_str()) {
        lines.push(format!("planned      {planned}, {position} before it"));
    }
    if explanation["why_not"].is_object() {
        lines.push(format!("why not      {}", why_not(&explanation["why_not"])));
    }
    for recent in explanation["history"].as_array().into_iter().flatten().take(5) {
        let detail = ["why", "failure", "because", "reason"].iter().find_map(|key| recent[*key].as_str());
        lines.push(format!(
            "before       {} at height {}: {}{}{}",
            text(&recent["kind"]),
            recent["height"],
            text(&recent["outcome"]),
            detail.map(|detail| format!(" ({detail})")).unwrap_or_default(),
            recent["result"].as_str().map(|result| format!(", as {result}")).unwrap_or_default(),
        ));
    }
    if let Some(trouble) = explanation["trouble"].as_str() {
        lines.push(format!("trouble      {trouble}"));
    }
    lines.join("\n")
}

fn why_not(reason: &Value) -> String {
    let of = |key: &str| reason[key].as_str().map_or_else(|| reason[key].to_string(), str::to_owned);
    match reason["reason"].as_str().unwrap_or_default() {
        "other-shard" => format!("it is in shard {}", of("owner")),
        "fee-too-low" => format!("it would bring {} nau; --min-gobbling-fee asks for {}", of("gobble_nau"), of("least_nau")),
        "too-many-proofs" => format!("its collection has {} proofs or more; --max-num-proofs is {}", of("proofs"), of("most")),
        "up-to-date" => "it is a SingleProof at the tip, with nothing to merge it with".to_owned(),
        "update-pays-nothing" => "it needs an update, which pays nothing; --min-gobbling-fee 0 does it anyway".to_owned(),
        "unknown-mutator-set" => "its mutator set is none of the last 100 blocks'".to_owned(),
        "double-spend" => "a block has spent one of its inputs".to_owned(),
        "resting" if reason["until_time"].is_u64() => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            let left = reason["until_time"].as_u64().unwrap_or_default().saturating_sub(now);
            format!("it failed ({}) and is tried again in {left} s", of("because"))
        }
        "resting" => format!("it failed ({}) and rests until height {}", of("because"), of("until_height")),
        "poison" => format!("it can not be proven: {}", of("because")),
        "prover-too-small" => format!("no prover takes 2^{} rows", of("log2_padded_height")),
        "no-proof-shown" => "the node shows no proof of it".to_owned(),
        "retires-soon" => "it retires too soon".to_owned(),
        "in-progress" => "it is being upgraded".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_works_on_it_is_believed_before_who_does_not_know_it() {
        let of = |state: &str, ours: bool| json!({"state": state, "in_this_shard": ours, "history": []});
        let best = |states: &[(&str, bool)]| {
            telling(states.iter().map(|(state, ours)| of(state, *ours)).collect()).map(|best| best["state"].clone())
        };
        assert_eq!(best(&[("unknown", false), ("passed-over", true), ("in-progress", true)]), Some(json!("in-progress")));
        assert_eq!(best(&[("passed-over", false), ("passed-over", true), ("unknown", true)]), Some(json!("passed-over")));
        assert_eq!(best(&[]), None);
    }

    #[test]
    fn reasons_are_sentences() {
        let explanation = json!({
            "txid": "ab", "shard": "4:1", "owner": "4:1", "in_this_shard": true, "in_mempool": true, "state": "passed-over",
            "why_not": {"reason": "fee-too-low", "gobble_nau": "5", "least_nau": "7"},
            "history": [{"kind": "raise", "height": 3, "outcome": "failed", "failure": "no-prover", "because": "queue full"}],
        });
        let text = render(&explanation);
        for part in ["it would bring 5 nau; --min-gobbling-fee asks for 7", "raise at height 3: failed (no-prover)", "4:1"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
