//! What a specification is made to mean before a process starts.

use super::*;

#[test]
fn ordinary_users_hold_no_capabilities() {
    let spec = default_for(["id"]).user(1000, 1000, []).build();
    let sets = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
    assert_eq!(capabilities::bits(sets.bounding().as_ref()), 0xa804_25fb);
    assert_eq!(capabilities::bits(sets.effective().as_ref()), 0);
    assert_eq!(capabilities::bits(sets.permitted().as_ref()), 0);
}

#[test]
fn a_later_mount_replaces_an_earlier_one() {
    let spec = default_for(["true"])
        .tmpfs("/data", &[])
        .bind(Bind {
            source: "/srv".into(),
            target: "/data".into(),
            read_only: true,
        })
        .build();
    let mounts = spec.mounts().clone().unwrap();
    let data: Vec<_> = mounts
        .iter()
        .filter(|m| m.destination() == Path::new("/data"))
        .collect();
    assert_eq!(data.len(), 1);
    assert_eq!(data[0].options().as_deref().unwrap(), ["rbind", "rprivate", "ro"]);
}

#[test]
fn path_is_added_and_kept() {
    let env = |builder: SpecBuilder| builder.build().process().clone().unwrap().env().clone().unwrap();
    assert_eq!(
        env(default_for(["a"]).env(["A=b"])),
        [format!("PATH={DEFAULT_PATH}"), "A=b".to_owned()]
    );
    assert_eq!(env(default_for(["a"]).env(["PATH=/x"])), ["PATH=/x"]);
}

#[test]
fn a_privileged_process_is_not_filtered() {
    let spec = default_for(["a"]).privileged(true).build();
    let linux = spec.linux().clone().unwrap();
    assert!(linux.seccomp().is_none());
    assert!(linux.masked_paths().as_ref().unwrap().is_empty());
    let sets = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
    assert_eq!(
        sets.effective().as_ref().unwrap().len(),
        capabilities::NAMES.len()
    );
}
