"""The 85 prompt templates of CLIP Surgery: OpenAI's 80 for ImageNet and five about scenes."""

from open_clip import OPENAI_IMAGENET_TEMPLATES

SCENE_TEMPLATES = (
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)
TEMPLATES: tuple[str, ...] = (*(template("{}") for template in OPENAI_IMAGENET_TEMPLATES), *SCENE_TEMPLATES)
