//! Documents of repositories: set by compare-and-set, bounded, created and gone with their repository.

use std::ops::ControlFlow;
use std::time::Duration;

use strongroom::registry::{EventKind, ExpectDocument, RepositoryDeletion, RepositorySettings};
use strongroom::vfs::SimVfs;
use strongroom::{Clock, CollectOptions, Error, ErrorKind, Lsn};

use crate::common::registry::{Lab, RETENTION, name, options};

const POLICY: &str = r#"{"Version":"2012-10-17","Statement":[]}"#;

#[test]
fn of_two_who_change_one_revision_one_is_told_what_it_is_now() {
    let store = options(&SimVfs::new(), &Clock::manual()).open("/store").unwrap();
    let repository = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    let first = repository.set_document("policy", POLICY, ExpectDocument::Absent).unwrap();
    let again = repository.set_document("policy", POLICY, ExpectDocument::Absent);
    assert!(matches!(again, Err(Error::DocumentChanged { found: Some(found), .. }) if found == first));
    let second = repository.set_document("policy", "{}", ExpectDocument::Is(first)).unwrap();
    let lost = repository.set_document("policy", "[]", ExpectDocument::Is(first)).unwrap_err();
    assert!(matches!(lost, Error::DocumentChanged { found: Some(found), .. } if found == second));
    assert_eq!(lost.kind(), ErrorKind::Conflict);
    let lost = repository.remove_document("policy", ExpectDocument::Is(first));
    assert!(matches!(lost, Err(Error::DocumentChanged { .. })));
    let found = repository.document("policy").unwrap().unwrap();
    assert_eq!((found.revision, &*found.content), (second, &b"{}"[..]));
    let before = repository.snapshot().unwrap();
    repository.remove_document("policy", ExpectDocument::Is(second)).unwrap();
    assert_eq!(repository.document("policy").unwrap(), None);
    assert_eq!(before.document("policy").unwrap(), Some(found.clone()));
    assert_eq!(before.documents().unwrap(), [found]);
    let gone = repository.remove_document("policy", ExpectDocument::Any).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let is_gone = repository.set_document("policy", "{}", ExpectDocument::Is(second));
    assert!(matches!(is_gone, Err(Error::DocumentChanged { found: None, .. })));
    let kinds = store.events(Lsn::default(), 100).unwrap().events.into_iter().map(|event| event.kind);
    let changed = EventKind::DocumentChanged { name: "policy".into() };
    assert_eq!(kinds.filter(|kind| *kind == changed).count(), 3);
}

#[test]
fn a_repository_has_so_many_documents_of_such_a_length_and_no_more() {
    let store = options(&SimVfs::new(), &Clock::manual()).open("/store").unwrap();
    let repository = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    let set = |name: &str, content: &[u8]| repository.set_document(name, content, ExpectDocument::Any);
    for n in 0..64 {
        set(&format!("document {n:02}"), b"content").unwrap();
    }
    let too_many = set("one more", b"").unwrap_err();
    assert!(matches!(too_many, Error::TooLarge { limit: 64, found: 65, .. }));
    set("document 07", &vec![7; 1 << 20]).unwrap();
    assert!(matches!(set("document 07", &vec![7; (1 << 20) + 1]), Err(Error::TooLarge { .. })));
    assert!(matches!(set("größe", b""), Err(Error::InvalidDocumentName { .. })));
    repository.remove_document("document 08", ExpectDocument::Any).unwrap();
    set("one more", b"").unwrap();
    repository.set_settings(RepositorySettings::new().document("ignored", "").unwrap()).unwrap();
    let documents = repository.documents().unwrap();
    assert!(documents.is_sorted_by_key(|document| document.name.clone()));
    assert_eq!((documents.len(), documents[7].content.len()), (64, 1 << 20));
    assert!(store.verify(|_| {}).unwrap().findings.is_empty());
}

#[test]
fn what_a_repository_is_created_with_is_there_from_the_beginning_and_goes_with_it() {
    let lab = Lab::new();
    let store = lab.open();
    let settings = RepositorySettings::new().document("policy", "first").unwrap().document("policy", POLICY).unwrap();
    let pushed = store.create_on_push(&name("team/pushed"), settings.clone()).unwrap();
    assert_eq!(pushed.document("policy").unwrap().unwrap().content, POLICY);
    // A push creates it, and then somebody by hand: with what that one wants.
    let by_hand = RepositorySettings::new().document("resource tags", "[]").unwrap();
    let taken = store.create_on_push(&name("team/taken"), settings).unwrap();
    store.create_repository(&name("team/taken"), by_hand).unwrap();
    assert_eq!(taken.documents().unwrap().len(), 2);
    lab.advance(2 * RETENTION);
    store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
    assert!(matches!(pushed.documents(), Err(Error::RepositoryNotFound { .. })), "nobody pushed to it");
    assert_eq!(taken.documents().unwrap().len(), 2);
    store.delete_repository(&name("team/taken"), RepositoryDeletion::IfEmpty).unwrap();
    let again = store.create_repository(&name("team/taken"), RepositorySettings::new()).unwrap();
    assert_eq!(again.documents().unwrap(), []);
    let first = again.set_document("policy", POLICY, ExpectDocument::Absent).unwrap();
    store.close().unwrap();
    let store = lab.open();
    let found = store.repository(&name("team/taken")).unwrap().document("policy").unwrap().unwrap();
    assert_eq!((found.revision, found.updated_ms), (first, Duration::from_secs(2 * RETENTION).as_millis() as u64));
    assert!(store.verify(|_| {}).unwrap().findings.is_empty());
}
