//! One real piece of work: the request that warms an engine up, and the one that shows whether it still works.

use std::time::Duration;

use orch_core::redact_text;
use orch_runtime::{ProbeError, ProbeResponse, probe_post};
use serde_json::{Value, json};

use crate::probe::Prober;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Completion {
    Done,
    /// It answered, but not with a completion: the request was not to its taste (4xx), or is not its work (501).
    Declined(String),
    /// An error of its own, an answer that is none, a connection that broke off.
    Failed(String),
    /// Nobody took the connection.
    Refused,
    /// No answer within the limit.
    Silent,
}

/// Asks for one token, or for one embedding where an engine makes nothing else. Dropping the future ends the
/// engine's work on it.
pub(crate) async fn complete_once(prober: &Prober, prompt: &str, limit: Duration) -> Completion {
    let both = async {
        let asked = json!({"prompt": prompt, "max_tokens": 1, "stream": false});
        let answer = ask(prober, "/v1/completions", &asked, limit).await;
        if matches!(&answer, Ok(answer) if answer.status == NOT_ITS_WORK) {
            return ask(prober, "/v1/embeddings", &json!({"input": prompt}), limit).await;
        }
        answer
    };
    match tokio::time::timeout(limit, both).await {
        Ok(Ok(answer)) => judge(&answer, prober.api_key.as_slice()),
        Ok(Err(ProbeError::Timeout)) | Err(_) => Completion::Silent,
        Ok(Err(ProbeError::Refused)) => Completion::Refused,
        Ok(Err(error)) => Completion::Failed(error.to_string()),
    }
}

const NOT_ITS_WORK: u16 = 501;

async fn ask(
    prober: &Prober,
    path: &str,
    body: &Value,
    limit: Duration,
) -> Result<ProbeResponse, ProbeError> {
    let key = prober.api_key.as_deref();
    probe_post(&prober.host, prober.port, path, key, body.to_string(), limit).await
}

fn judge(answer: &ProbeResponse, secrets: &[String]) -> Completion {
    // An answer longer than what is read of it is no error, but no whole document either.
    let document = serde_json::from_slice::<Value>(&answer.body).ok();
    let said = document.as_ref().and_then(|document| document["error"]["message"].as_str());
    let words = said
        .map(|said| redact_text(said, secrets))
        .map_or(String::new(), |said| format!(": {}", said.chars().take(200).collect::<String>()));
    match answer.status {
        200 if answer.body.starts_with(b"{") && said.is_none() => Completion::Done,
        200 => Completion::Failed(format!("a 200 that is no completion{words}")),
        400..=499 | NOT_ITS_WORK => Completion::Declined(format!("HTTP {}{words}", answer.status)),
        status => Completion::Failed(format!("HTTP {status}{words}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &'static str) -> Completion {
        judge(
            &ProbeResponse {
                status,
                body: body.into(),
                peer: ([127, 0, 0, 1], 1).into(),
                elapsed: Duration::ZERO,
            },
            &["sk-12345".to_owned()],
        )
    }

    #[test]
    fn only_an_engine_s_own_faults_are_failures() {
        assert_eq!(judged(200, "{\"choices\":[]}"), Completion::Done);
        for status in [400, 401, 404, 429, 501] {
            assert!(matches!(judged(status, "{}"), Completion::Declined(_)), "{status}");
        }
        for (status, body) in [(500, "{}"), (503, ""), (200, "OK"), (200, "{\"error\":{\"message\":\"no\"}}")]
        {
            assert!(matches!(judged(status, body), Completion::Failed(_)), "{status} {body}");
        }
    }

    #[test]
    fn what_the_engine_says_of_its_error_is_told() {
        let failed = judged(500, "{\"error\":{\"message\":\"decode failed\"}}");
        assert_eq!(failed, Completion::Failed("HTTP 500: decode failed".to_owned()));
        let echoed = judged(401, "{\"error\":{\"message\":\"bad key sk-12345\"}}");
        assert_eq!(echoed, Completion::Declined("HTTP 401: bad key ********".to_owned()));
    }
}
