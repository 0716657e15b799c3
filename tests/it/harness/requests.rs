//! Requests on records as servers read them; one of a wrong shape fails the test.

use kumo_server::wire::method::{Delete, Get, GetIfModified, ReplicateDelete, ReplicateSet, Set};
use kumo_server::wire::params::{Decode, decode};
use kumo_server::wire::{RecordKey, RecordValue};

fn read<'a, T: Decode<'a>>(params: &'a [u8]) -> T {
    decode(params).expect("parameters of the method")
}

pub(crate) fn get(params: &[u8]) -> Get<RecordKey<'_>> {
    read(params)
}

pub(crate) fn get_if_modified(params: &[u8]) -> GetIfModified<RecordKey<'_>> {
    read(params)
}

pub(crate) fn set(params: &[u8]) -> Set<RecordKey<'_>, RecordValue<'_>> {
    read(params)
}

pub(crate) fn delete(params: &[u8]) -> Delete<RecordKey<'_>> {
    read(params)
}

pub(crate) fn replicate_set(params: &[u8]) -> ReplicateSet<RecordKey<'_>, RecordValue<'_>> {
    read(params)
}

pub(crate) fn replicate_delete(params: &[u8]) -> ReplicateDelete<RecordKey<'_>> {
    read(params)
}
