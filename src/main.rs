//! Arguments to exit code; everything else is in the library.

use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    frazil::telemetry::logs::init(&frazil::telemetry::logs::LogOptions {
        format: frazil::telemetry::logs::LogFormat::Text, level: std::env::var("L").unwrap_or("info".into()), color: false }).unwrap();
    let rt = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().unwrap();
    let shutdown = frazil::runtime::shutdown::Shutdown::new();
    let r = rt.block_on(async move {
        let s2 = shutdown.clone();
        tokio::spawn(async move { tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap().recv().await; s2.request(); });
        if args[1] == "demo" {
            frazil::app::demo(frazil::app::DemoRunOptions { dir: args[2].clone().into(), rate: 1000, once: args.len() > 3, say: Arc::new(|n| println!("{n:?}")) }, shutdown).await
        } else {
            let config = frazil::config::Config::load(args[3].as_ref(), &frazil::config::process_env).unwrap();
            frazil::app::run(config, frazil::app::RunOptions { until_caught_up: args.len() > 4, config_path: None, progress: Some(Arc::new(|p| println!("{p:?}"))) }, shutdown).await
        }
    });
    if let Err(e) = r { println!("{e:?}"); std::process::exit(1) }
}
