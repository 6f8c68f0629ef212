"""Gymnasium environments around frozen segmenters; importing this registers them."""

from gymnasium.envs.registration import register, registry

if "SamSeg-v0" not in registry:
    register(
        id="SamSeg-v0",
        entry_point="alignsam_sb3.envs.sam_seg:SamSegEnv",
        disable_env_checker=True,  # the checker objects to observations that share arrays within an episode
    )

__all__: list[str] = []
