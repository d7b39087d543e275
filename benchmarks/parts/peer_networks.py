"""The shapes of three face restorers at 512 px with random weights, for speed.py: speed does not depend on weights.

Written anew from what is published: the papers, the options of their training and the sizes of the released weights.

* GFPGAN (arXiv 2101.04061) as v1.3 and v1.4: a U-shaped network down to 4 x 4 gives 16 style codes, and scales and
  shifts for half the channels of a StyleGAN2 generator (arXiv 1912.04958) whose ``channel_multiplier`` is 2.
* CodeFormer (arXiv 2206.11253): a VQ autoencoder with 64 channels times 1, 2, 2, 4, 4, 8, attention at 16 x 16, a
  transformer of 9 layers that tells 256 codes of 1,024, and fusion with the encoder's features at 32 to 256.
* RestoreFormer (arXiv 2201.06374): such an autoencoder with eight heads; at 16 x 16 its decoder asks with the degraded
  face's features.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 512
# Bytes of GFPGANv1.4.pth, codeformer.pth and RestoreFormer.pth: four a number, and a little for the file's own index.
PUBLISHED = {"GFPGAN": 348_632_874, "CodeFormer": 376_637_898, "RestoreFormer": 290_785_322}


def conv(before: int, after: int, kernel: int = 3, **options: int | bool) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, padding=kernel // 2, **options)


def activated(before: int, after: int) -> nn.Sequential:
    """How the VQ autoencoders convolve."""
    return nn.Sequential(nn.GroupNorm(32, before), nn.SiLU(), conv(before, after))


def condition(width: int) -> nn.Sequential:
    """What tells a scale or a shift at each place."""
    return nn.Sequential(conv(width, width), nn.LeakyReLU(0.2), conv(width, width))


def scaled(x: Tensor, factor: float) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


class Residual(nn.Module):
    """Of the VQ autoencoders."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.both = nn.Sequential(activated(before, after), activated(after, after))
        self.skip = nn.Identity() if before == after else conv(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.both(x)


class Attention(nn.Module):
    """Over all places: CodeFormer's has one head; with more, as in RestoreFormer, ``others`` ask if they are given."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (conv(width, width, 1) for _ in range(4))
        self.norm = nn.GroupNorm(32, width)
        self.norm_others = nn.GroupNorm(32, width) if heads > 1 else None

    def forward(self, x: Tensor, others: Tensor | None = None) -> Tensor:
        normed = self.norm(x)
        asking = normed if others is None or self.norm_others is None else self.norm_others(others)

        def split(y: Tensor) -> Tensor:
            return y.unflatten(1, (self.heads, -1)).flatten(3).transpose(2, 3)

        asked = split(self.key(normed)), split(self.value(normed))
        found = F.scaled_dot_product_attention(split(self.query(asking)), *asked)
        return x + self.out(found.transpose(2, 3).reshape(x.shape))


class Middle(nn.Module):
    """Residual, attention, residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.first, self.second = Residual(width, width), Residual(width, width)
        self.attention = Attention(width, heads)

    def forward(self, x: Tensor, others: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What comes out, and what the attention saw."""
        seen = self.first(x)
        return self.second(self.attention(seen, others)), seen


WIDTHS = (64, 128, 128, 256, 256, 512)  # at 512, 256, 128, 64, 32, 16
CODES, CODE = 1024, 256  # the codebook


class Encoder(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.enter = conv(3, WIDTHS[0])
        self.levels, self.downs = nn.ModuleList(), nn.ModuleList()
        for before, after in zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False):
            pair: list[nn.Module] = [Residual(before, after), Residual(after, after)]
            if len(self.levels) == len(WIDTHS) - 1:
                pair = [pair[0], Attention(after, heads), pair[1], Attention(after, heads)]
            else:
                self.downs.append(conv(after, after, stride=2))
            self.levels.append(nn.Sequential(*pair))
        self.middle = Middle(WIDTHS[-1], heads)
        self.leave = activated(WIDTHS[-1], CODE)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B,3,512,512) -> (B,256,16,16); the features at 512 to 16, what the middle's attention saw, the middle's."""
        x, features = self.enter(images), []
        for index, level in enumerate(self.levels):
            features.append(x := level(x))
            if index < len(self.downs):
                x = self.downs[index](x)
        x, seen = self.middle(x)
        return self.leave(x), [*features, seen, x]


class Fuse(nn.Module):
    """The controllable feature transformation: scales and shifts of the decoder's features, by both sides' features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.join = Residual(2 * width, width)
        self.scale, self.shift = condition(width), condition(width)

    def forward(self, encoded: Tensor, x: Tensor, weight: float = 0.5) -> Tensor:
        joint = self.join(torch.cat([encoded, x], dim=1))
        return x + weight * (x * self.scale(joint) + self.shift(joint))


class Decoder(nn.Module):
    """blocks: at each size. fused: the numbers of the sizes that the encoder's features come to."""

    def __init__(self, heads: int, blocks: int, fused: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.enter, self.middle = conv(CODE, WIDTHS[-1]), Middle(WIDTHS[-1], heads)
        self.levels, self.ups = nn.ModuleList(), nn.ModuleList()
        before = WIDTHS[-1]
        for after in reversed(WIDTHS):
            self.levels.append(nn.ModuleList(Residual(before if k == 0 else after, after) for k in range(blocks)))
            if after != WIDTHS[0]:
                self.ups.append(conv(after, after))
            before = after
        self.fuses = nn.ModuleDict({str(size): Fuse(WIDTHS[size]) for size in fused})
        self.attentions = nn.ModuleList(Attention(WIDTHS[-1], heads) for _ in range(blocks))
        self.leave = activated(before, 3)

    def forward(self, codes: Tensor, features: list[Tensor]) -> Tensor:
        """(B,256,16,16) and the encoder's features -> (B,3,512,512)."""
        *fine, seen, middle = features
        x, _ = self.middle(self.enter(codes), middle)
        for index, level in enumerate(self.levels):
            size = len(WIDTHS) - 1 - index
            for count, block in enumerate(level):
                x = block(x)
                if index == 0:
                    x = self.attentions[count](x, seen)
                if count == 0 and str(size) in self.fuses:
                    x = self.fuses[str(size)](fine[size], x)
            if size:
                x = self.ups[index](F.interpolate(x, scale_factor=2.0))
        return self.leave(x)


class RestoreFormer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(heads=8), Decoder(heads=8, blocks=3)
        self.before, self.codes, self.after = conv(CODE, CODE, 1), nn.Embedding(CODES, CODE), conv(CODE, CODE, 1)

    def forward(self, images: Tensor) -> Tensor:
        latents, features = self.encoder(images)
        asked = self.before(latents).flatten(2).mT
        nearest = torch.cdist(asked, self.codes.weight.expand(len(asked), -1, -1)).argmin(-1)
        found = self.codes(nearest).mT.reshape(latents.shape)
        return self.decoder(self.after(found), features)


class Layer(nn.Module):
    """A transformer layer of 512 numbers and eight heads; the places are added to what asks and what is asked."""

    def __init__(self, width: int = 512, inner: int = 1024) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(width, 8, batch_first=True)
        self.norm, self.norm_inner = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inner = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        normed = self.norm(x)
        x = x + self.attend(normed + places, normed + places, normed, need_weights=False)[0]
        return x + self.inner(self.norm_inner(x))


class CodeFormer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(heads=1), Decoder(heads=1, blocks=2, fused=(1, 2, 3, 4))
        self.enter, self.places = nn.Linear(CODE, 512), nn.Parameter(torch.zeros(256, 512))
        self.layers = nn.ModuleList(Layer() for _ in range(9))
        self.tell = nn.Sequential(nn.LayerNorm(512), nn.Linear(512, CODES, bias=False))
        self.codes = nn.Embedding(CODES, CODE)

    def forward(self, images: Tensor) -> Tensor:
        latents, features = self.encoder(images)
        x = self.enter(latents.flatten(2).mT)
        for layer in self.layers:
            x = layer(x, self.places)
        found = self.codes(self.tell(x).argmax(-1)).mT.reshape(latents.shape)
        std, mean = torch.std_mean(latents, dim=(2, 3), keepdim=True)
        std_found, mean_found = torch.std_mean(found, dim=(2, 3), keepdim=True)
        found = (found - mean_found) / (std_found + 1e-5) * std + mean
        return self.decoder(found, features)


STYLE = 512
DRAWN = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64}  # the generator's channels
SIZES = tuple(DRAWN)


class Resample(nn.Module):
    """A residual block that makes its picture ``factor`` times as large."""

    def __init__(self, before: int, after: int, factor: float) -> None:
        super().__init__()
        self.factor, self.first, self.second = factor, conv(before, before), conv(before, after)
        self.skip = conv(before, after, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return leaky(self.second(scaled(leaky(self.first(x)), self.factor))) + self.skip(scaled(x, self.factor))


class Modulated(nn.Module):
    """A convolution whose weights are scaled by a style code, and normed again where it has noise."""

    def __init__(self, before: int, after: int, kernel: int, noise_side: int | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, after, before, kernel, kernel) / (before * kernel**2) ** 0.5)
        self.style, self.bias = nn.Linear(STYLE, before), nn.Parameter(torch.zeros(1, after, 1, 1))
        self.strength = None if noise_side is None else nn.Parameter(torch.zeros(1))
        self.register_buffer("noise", None if noise_side is None else torch.randn(1, 1, noise_side, noise_side))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        weight = self.weight * self.style(code)[:, None, :, None, None]
        if self.strength is not None:
            weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        batch, after, before, kernel, _ = weight.shape
        grouped = x.reshape(1, batch * before, *x.shape[2:])
        out = F.conv2d(grouped, weight.flatten(0, 1), padding=kernel // 2, groups=batch)
        out = out.reshape(batch, after, *x.shape[2:])
        if self.strength is None:
            return out + self.bias
        return leaky(out * 2**0.5 + self.strength * self.noise + self.bias)


class GFPGAN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        half = {size: width // 2 for size, width in DRAWN.items()}
        steps = tuple(zip(SIZES, SIZES[1:], strict=False))
        self.enter, self.bottom = conv(3, half[SIDE], 1), conv(half[4], half[4])
        self.downs = nn.ModuleList(Resample(half[large], half[small], 0.5) for small, large in reversed(steps))
        self.ups = nn.ModuleList(Resample(half[small], half[large], 2.0) for small, large in steps)
        self.previews = nn.ModuleList(conv(half[size], 3, 1) for size in SIZES[1:])  # only training looks at them
        self.codes = nn.Linear(half[4] * 16, 2 * len(SIZES) * STYLE)
        self.mapping = nn.ModuleList(nn.Linear(STYLE, STYLE) for _ in range(8))  # the codes pass it by
        self.scales, self.shifts = (nn.ModuleList(condition(half[size]) for size in SIZES[1:]) for _ in range(2))
        self.constant = nn.Parameter(torch.randn(1, DRAWN[4], 4, 4))
        self.first, self.colour = Modulated(DRAWN[4], DRAWN[4], 3, 4), Modulated(DRAWN[4], 3, 1, None)
        self.enlarge = nn.ModuleList(Modulated(DRAWN[small], DRAWN[large], 3, large) for small, large in steps)
        self.draw = nn.ModuleList(Modulated(DRAWN[size], DRAWN[size], 3, size) for size in SIZES[1:])
        self.colours = nn.ModuleList(Modulated(DRAWN[size], 3, 1, None) for size in SIZES[1:])

    def forward(self, images: Tensor) -> Tensor:
        x, skips = leaky(self.enter(images)), []
        for down in self.downs:
            skips.append(x := down(x))
        x = leaky(self.bottom(x))
        codes = self.codes(x.flatten(1)).unflatten(1, (-1, STYLE))
        conditions = []
        for index, up in enumerate(self.ups):
            x = up(x + skips[-1 - index])
            conditions.append((self.scales[index](x), self.shifts[index](x)))
        x = self.first(self.constant.expand(len(images), -1, -1, -1), codes[:, 0])
        picture = self.colour(x, codes[:, 1])
        for index, (scale, shift) in enumerate(conditions):
            x = self.enlarge[index](scaled(x, 2), codes[:, 2 * index + 1])
            kept, changed = x.chunk(2, dim=1)
            x = self.draw[index](torch.cat([kept, changed * scale + shift], dim=1), codes[:, 2 * index + 2])
            picture = scaled(picture, 2) + self.colours[index](x, codes[:, 2 * index + 3])
        return picture


NETWORKS = (GFPGAN, CodeFormer, RestoreFormer)
