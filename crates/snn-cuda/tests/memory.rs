//! Buffers, spikes and what goes wrong, on the emulated device.

mod common;

use common::device;
use snn_core::backend::{Memory, SpikeMemory};
use snn_core::{Lanes, Spikes};

#[test]
fn buffers_keep_what_they_are_given() {
    let device = device();
    let mut x = device.buffer_from(&[1.0_f32, 2.0, 3.0]).unwrap();
    let mut y = device.zeros::<f32>(3).unwrap();
    assert_eq!(device.to_host(&y).unwrap(), [0.0; 3]);
    device.copy(&x, &mut y).unwrap();
    device.fill(&mut x, 7.5).unwrap();
    assert_eq!(device.to_host(&y).unwrap(), [1.0, 2.0, 3.0]);
    assert_eq!(device.to_host(&x).unwrap(), [7.5; 3]);
    device.resize(&mut x, 1).unwrap();
    device.resize(&mut x, 3).unwrap();
    assert_eq!(device.len(&x), 3);
    assert!(device.upload(&[1.0], &mut x).is_err());
    assert!(device.copy(&x, &mut device.zeros(2).unwrap()).is_err());
    let mut bytes = device.zeros::<u8>(5).unwrap();
    device.fill(&mut bytes, 3).unwrap();
    assert_eq!(device.to_host(&bytes).unwrap(), [3; 5]);
    let mut double = device.zeros::<f64>(2).unwrap();
    device.fill(&mut double, 0.5).unwrap();
    assert_eq!(device.to_host(&double).unwrap(), [0.5; 2]);
}

#[test]
fn large_uploads_go_in_parts() {
    let device = device();
    let host: Vec<u32> = (0..(1 << 24) + 3).collect();
    let uploaded = device.buffer_from(&host).unwrap();
    assert!(device.to_host(&uploaded).unwrap() == host);
}

#[test]
fn buffers_do_not_grow_in_recordings() {
    let device = device();
    let mut x = device.buffer_from(&[1.0_f32]).unwrap();
    let refused = device.record(&mut || device.resize(&mut x, 2)).unwrap_err().to_string();
    assert_eq!(refused, "cuda:0: cannot record a buffer that grows");
    assert_eq!(device.to_host(&x).unwrap(), [1.0]);
}

#[test]
fn too_much_memory_is_an_error() {
    let error = device().zeros::<f32>(1 << 40).unwrap_err().to_string();
    assert_eq!(error, "cuda:0: no memory for 4398046511104 bytes");
    assert!(device().zeros::<f32>(usize::MAX).is_err());
}

#[test]
fn spikes_come_back_as_they_went() {
    let device = device();
    let rows = [vec![0, 31, 32, 64], vec![], vec![5, 5, 5, 6, 40, 40], vec![64], vec![], vec![2; 700]];
    let host = Spikes::from_rows(2, 3, 65, rows).unwrap();
    let mut spikes = device.spikes();
    device.upload_spikes(&host, &mut spikes).unwrap();
    assert_eq!(device.download_spikes(&spikes).unwrap(), host);
    assert_eq!(device.spike_lanes(&spikes), Lanes::new(2, 3, 65));
    assert_eq!(device.events_per_sample(&spikes).unwrap(), [10, 701]);

    let (mut sum, mut late) = (device.spikes(), device.spikes());
    device.add_spikes(&spikes, &spikes, &mut sum).unwrap();
    let mut twice = Spikes::new();
    twice.merge(&host, &host).unwrap();
    assert_eq!(device.download_spikes(&sum).unwrap(), twice);
    for by in [0, 1, 2, 3, 9] {
        device.delay_spikes(&spikes, by, &mut late).unwrap();
        let rows = (0..6_usize).map(|row| if row % 3 >= by { host.row(row - by).to_vec() } else { vec![] });
        assert_eq!(device.download_spikes(&late).unwrap(), Spikes::from_rows(2, 3, 65, rows).unwrap());
    }
    device.upload_spikes(&Spikes::new(), &mut spikes).unwrap();
    assert!(device.add_spikes(&spikes, &sum, &mut late).is_err());
    assert_eq!(device.download_spikes(&spikes).unwrap().events(), 0);
}

#[test]
fn what_the_host_takes_part_in_is_refused_by_a_recording() {
    let gpu = device();
    let mut x = gpu.zeros::<f32>(4).unwrap();
    let refused = gpu.record(&mut || gpu.upload(&[1.0; 4], &mut x)).unwrap_err().to_string();
    assert_eq!(refused, "cuda:0: cannot record a copy from or to the host");
    assert!(gpu.record(&mut || gpu.synchronise()).is_err());
    // Nothing is left of the attempts.
    gpu.upload(&[1.0, 2.0, 3.0, 4.0], &mut x).unwrap();
    let mut y = gpu.zeros::<f32>(4).unwrap();
    let recording = gpu.record(&mut || gpu.copy(&x, &mut y)).unwrap().unwrap();
    assert_eq!(gpu.to_host(&y).unwrap(), [0.0; 4]);
    gpu.replay(&recording).unwrap();
    assert_eq!(gpu.to_host(&y).unwrap(), [1.0, 2.0, 3.0, 4.0]);
}
