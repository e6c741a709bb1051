//! The words of the election's conversations.

use std::fmt::Write as _;

use coracle_recipes::election::{self, Campaign, Candidacy, Claim, Leader};
use coracle_recipes::{Condition, Operation, Outcome, Refusal, Turn};
use coracle_store::{ContentType, Revision};

use crate::script::{self, Script, Speech};

pub struct Words;

impl Speech for Words {
    fn question(&self, script: &mut Script, words: &mut script::Words) -> Option<String> {
        if !words.has("election") {
            return None;
        }
        Some(match words.verb.as_str() {
            "line" => {
                let seen = election::show(script.store.view(), &words.text("election"), 100);
                let mut text = match &seen.leader {
                    Some(led) => format!("{}\n", leader(script, led)),
                    None => "vacant\n".into(),
                };
                for place in &seen.candidates {
                    let (who, priority) = (script.who(place.session), place.terms.priority);
                    let _ = writeln!(text, "{}. {who} priority={priority}", place.position);
                }
                text
            }
            "poll" => {
                let session = script.id(&words.text("session"));
                match election::poll(script.store.view(), &words.text("election"), session) {
                    Turn::Granted(led) => format!("leads {}", leader(script, &led)),
                    Turn::Waiting(place) => format!("candidate position={}", place.position),
                    Turn::Gone => "gone".into(),
                }
            }
            _ => return None,
        })
    }

    fn operation(&self, script: &mut Script, words: &mut script::Words) -> Option<Operation> {
        if !words.has("election") {
            return None;
        }
        Some(Operation::Election(match words.verb.as_str() {
            "campaign" => election::Operation::Campaign(Campaign {
                election: words.text("election").into(),
                candidacy: Candidacy {
                    priority: words.number("priority").map_or(0, |n| u8::try_from(n).expect("small")),
                    value: words.maybe("value").unwrap_or_default().into_bytes().into(),
                    content_type: ContentType::Text,
                },
                attach: script.attach(words),
                owner: "".into(),
                wait: !words.flag("try"),
            }),
            "proclaim" => {
                let value = words.text("value").into_bytes().into();
                election::Operation::Proclaim(claim(script, words), value, ContentType::Text)
            }
            "resign" => {
                let again = words.flag("rejoin");
                election::Operation::Resign(claim(script, words), again)
            }
            "withdraw" => election::Operation::Withdraw(claim(script, words)),
            "transfer" => {
                let to = script.id(&words.text("to"));
                election::Operation::Transfer(claim(script, words), to)
            }
            _ => return None,
        }))
    }

    fn outcome(&self, script: &Script, outcome: &Outcome) -> Option<String> {
        let Outcome::Election(outcome) = outcome else { return None };
        Some(match outcome {
            election::Outcome::Elected(led) => format!("leads {}", leader(script, led)),
            election::Outcome::Waiting(place) => {
                let by = place.blockers.first().map_or("nobody", |by| script.who(by.session));
                format!("candidate position={} behind={by}", place.position)
            }
            election::Outcome::Resigned(Some(led)) => format!("now leads {}", leader(script, led)),
            election::Outcome::Resigned(None) => "nobody leads".into(),
        })
    }

    fn refusal(&self, script: &Script, refusal: &Refusal) -> Option<String> {
        let Refusal::Election(refusal) = refusal else { return None };
        Some(match refusal {
            election::Refusal::NotElected(led, waiting) => {
                format!("not elected, leads {} waiting={waiting}", leader(script, led))
            }
            other => format!("{other:?}"),
        })
    }

    /// `leads cron 4`: that token is of the present term.
    fn condition(&self, line: &[&str]) -> Option<Condition> {
        let ["leads", name, token] = line else { return None };
        Some(Condition::Leads((*name).into(), Revision(token.parse().expect("a number"))))
    }
}

fn claim(script: &mut Script, words: &mut script::Words) -> Claim {
    let (election, session) = (words.text("election").into(), script.id(&words.text("session")));
    Claim { election, session, token: words.number("token").map(Revision) }
}

fn leader(script: &Script, leader: &Leader) -> String {
    let value = String::from_utf8_lossy(leader.candidacy.value.as_bytes()).into_owned();
    let value = if value.is_empty() { value } else { format!(" value={value}") };
    format!("{} token={} term={}{value}", script.who(leader.session), leader.token, leader.ordinal)
}
