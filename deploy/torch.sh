# Where torch comes from: a CPU wheel in the find-links that pip is configured with, else what uv chooses for this machine.
# Reads $python, sets the array `torch_from`. Sourced by environment.sh and lock.sh.
links=$("$python" -m pip config list 2>/dev/null | sed -n "s/.*find-links='\(.*\)'$/\1/p" | head -n 1)
torch_from=(--torch-backend "${NIGHTSHIFT_TORCH:-auto}")
for link in $links; do
    if compgen -G "${link#file://}/torch-2.13.0*.whl" >/dev/null; then torch_from=(--find-links "$link"); fi
done
