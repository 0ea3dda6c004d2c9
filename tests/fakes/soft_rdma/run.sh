#!/bin/bash
# Runs a script of the host inside the machine: run.sh MACHINE SCRIPT [SECONDS]
#
# The processor is emulated: what runs here is right or wrong, and says nothing about speed. Ends with
# the script's code; 99 where the machine never got to it.
set -euo pipefail
machine=$1 script=$2 seconds=${3:-120}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
timeout "$seconds" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -M q35 -m 1024 -smp 2 \
    -nodefaults -nographic -no-reboot -serial stdio \
    -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
    -kernel "$machine/vmlinuz" -initrd "$machine/initramfs.gz" \
    -append "console=ttyS0 quiet no_timer_check lpj=4000000 random.trust_cpu=on panic=-1 mitigations=off soft_rdma=$script" \
    < /dev/null | tr -d '\r' | tee "$log" || true
code=$(sed -n 's/^SOFT_RDMA_ENDED=\([0-9]*\).*/\1/p' "$log" | tail -1)
exit "${code:-99}"
