//! The applications of the partition map that go by several ids.

use crate::route::{self, Application, KeyBuffer};

use super::fault::Location;
use super::kinds::{Mistake, Text};
use super::printable::quoted;
use super::reader::{MapReader, Read};
use super::sections::{NAME, SWITCH};

/// Applications in one map, at most.
const MAX_APPLICATIONS: usize = 64;

/// Further ids of one application, at most.
const MAX_ALSO: usize = 32;

/// Longest id, in bytes.
const MAX_ID_BYTES: usize = 200;

/// An application whose web servers call it by several ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationSpec {
    /// What the metrics call it.
    pub name: String,
    /// The id under which state servers know it.
    pub id: String,
    /// Its other ids.
    pub also: Vec<String>,
    /// Whether ids may have either case.
    pub ignore_case: bool,
    /// The hash that state servers see behind `id`, base64.
    pub hash: String,
    /// What the data path goes by.
    pub application: Application,
}

/// What becomes of a request for an application of the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentOn {
    /// The application's name.
    pub name: String,
    /// What stands in front of the session id where it is sent on, decoded; `None` if that is what
    /// came.
    pub renamed_to: Option<String>,
}

/// One as far as it could be read, with the place of its name and of its id.
struct ApplicationDraft {
    name: Read<String>,
    id: Read<String>,
    spec: Option<ApplicationSpec>,
}

/// The hash that .NET 4.x puts behind an application's id (protocol 2.1).
pub fn application_hash(id: &str) -> String {
    base64(ring::digest::digest(&ring::digest::SHA256, id.as_bytes()).as_ref())
}

/// What becomes of a request with this target; `None` if it belongs to no application of the map.
pub fn sent_on(specs: &[ApplicationSpec], target: &[u8]) -> Option<SentOn> {
    let applications: Vec<_> = specs.iter().map(|spec| spec.application.clone()).collect();
    let renaming = route::renaming(&applications, target, &mut KeyBuffer::new());
    let renaming = renaming.ok().flatten()?;
    let spec = specs.get(renaming.application)?;
    Some(SentOn {
        name: spec.name.clone(),
        renamed_to: renaming
            .start
            .map(|_| format!("{}({})", spec.id, spec.hash)),
    })
}

/// The applications of a map; `None` if one of them is faulty.
pub(super) fn read_applications(map: &mut MapReader<'_, '_>) -> Option<Vec<ApplicationSpec>> {
    let applications = map.maps(
        "applications",
        "Applications that web servers call by several ids. Requests under any of them reach the \
         same sessions. Without an entry nothing is changed.",
        0..=MAX_APPLICATIONS,
        read_application,
    );
    if let Some((drafts, _)) = applications.found() {
        require_unique_applications(map, drafts);
    }
    let drafts = applications.value().unwrap_or_default();
    drafts.into_iter().map(|draft| draft.spec).collect()
}

fn read_application(map: &mut MapReader<'_, '_>) -> ApplicationDraft {
    let name = map.required("name", "What the metrics call the application.", &NAME);
    let id = map.required(
        "id",
        "The application's id under which state servers know its sessions, as web servers send it: \
         `/LM/W3SVC/`, the number of the site, `/ROOT`, the path.",
        &APPLICATION_ID,
    );
    let also = map.list(
        "also",
        "The other ids that web servers send for the same application.",
        &APPLICATION_ID,
        MAX_ALSO,
    );
    let ignore_case = map.optional(
        "ignore_case",
        "With `on`, the letters A to Z of these ids count in either case.",
        &SWITCH,
        false,
    );
    let hash = map.derived(
        "hash",
        "The hash that state servers see behind `id`. When left out it is the one that .NET 4 and \
         later send; older frameworks send one that depends on the machine key.",
        &HASH,
    );
    let mut spec = None;
    if let (Some((name, _)), Some((id, place))) = (name.found(), id.found()) {
        let hash = hash.value().unwrap_or_else(|| application_hash(id));
        match Application::new(id, &hash, &also.value, ignore_case.value) {
            Ok(application) => {
                spec = Some(ApplicationSpec {
                    name: name.clone(),
                    id: id.clone(),
                    also: also.value,
                    ignore_case: ignore_case.value,
                    hash,
                    application,
                });
            }
            Err(error) => map.fault(place, error.to_string(), "choose a shorter one for `id`"),
        }
    }
    ApplicationDraft { name, id, spec }
}

/// Reports names that are there twice, and ids that two applications have.
fn require_unique_applications(map: &mut MapReader<'_, '_>, drafts: &[ApplicationDraft]) {
    for (number, draft) in drafts.iter().enumerate() {
        let before = &drafts[..number];
        if let Some((name, place)) = draft.name.found()
            && let Some(first) = before.iter().find_map(|first| named(first, name))
        {
            let problem = format!("the application name {} is taken", quoted(name));
            map.clash(place, first, problem, "give every application its own");
        }
        let Some((spec, (_, place))) = draft.spec.as_ref().zip(draft.id.found()) else {
            continue;
        };
        let ids = || std::iter::once(&spec.id).chain(&spec.also);
        for first in before {
            let Some((first, (_, first_place))) = first.spec.as_ref().zip(first.id.found()) else {
                continue;
            };
            let first_ids = || std::iter::once(&first.id).chain(&first.also);
            let shared = ids().find(|id| first.application.has_id(id.as_bytes()));
            let shared =
                shared.or_else(|| first_ids().find(|id| spec.application.has_id(id.as_bytes())));
            if let Some(id) = shared {
                let problem = format!("two applications have the id {}", quoted(id));
                let help = "write each id once: requests under it go to one application";
                map.clash(place, first_place, problem, help);
            }
        }
    }
}

fn named(draft: &ApplicationDraft, name: &str) -> Option<Location> {
    let (own, place) = draft.name.found()?;
    (own == name).then_some(place)
}

const APPLICATION_ID: Text<String> = Text {
    wanted: "an application's id, such as `/LM/W3SVC/2/ROOT/Shop`",
    pattern: Some(r"^[^\u0000-\u001f\u007f]{1,200}$"),
    parse: |text| {
        let is_fine = (1..=MAX_ID_BYTES).contains(&text.len());
        match is_fine && !text.chars().any(char::is_control) {
            true => Ok(text.to_owned()),
            false => Err(Mistake::new(format!(
                "{} cannot be an application's id",
                quoted(text)
            ))),
        }
    },
    write: String::clone,
    secret: false,
};

const HASH: Text<String> = Text {
    wanted: "the hash as it stands between `(` and `)` in a request, in base64",
    pattern: Some(r"^[A-Za-z0-9+/]{22,88}={0,2}$"),
    parse: |text| match route::is_hash(text.as_bytes()) {
        true => Ok(text.to_owned()),
        false => Err(Mistake::new(format!("{} is no such hash", quoted(text)))),
    },
    write: String::clone,
    secret: false,
};

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let byte = |at: usize| u32::from(part.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let is_there = digit <= part.len();
            let index = (bits >> (18 - 6 * digit) & 63) as usize;
            text.push(if is_there { DIGITS[index].into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_dot_net_4() {
        // As a real client has sent it (protocol 2.1).
        let hash = application_hash("/LM/W3SVC/7/ROOT/shop");
        assert_eq!(hash, "Jm6ty1cajOuzgqZzg9R7dzIu2QqSsb6LymzfuVMEdFI=");
        let hash = application_hash("/LM/W3SVC/1/ROOT");
        assert_eq!(hash, "cAHkmVhipCLv/QnONQmPsKL+q/AjnK/nYS9aV3Zlad8=");
    }

    #[test]
    fn base64_is_padded() {
        let encoded = ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes()));
        assert_eq!(encoded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }
}
