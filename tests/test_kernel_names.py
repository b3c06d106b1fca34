"""Short forms of kernel names: which kernel it is stays readable, whatever the name."""

from __future__ import annotations

import gzip
import json
import time
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.conftest import CORPUS, NO_CORPUS
from traceq.kernel_names import short_kernel

COPY = (
    "at::native::direct_copy_kernel_cuda(at::TensorIteratorBase&)::{lambda()#3}::operator()() "
    "const::{lambda()#12}::operator()() const::{lambda(c10::BFloat16)#1}"
)
GROUP_NORM = (
    "at::native::(anonymous namespace)::GroupNormBackwardKernelImplInternal<float>"
    "(at::Tensor const&, at::Tensor const&, long, at::Tensor&)::"
)
SCATTER = (
    "void at::native::_scatter_gather_elementwise_kernel<128, 4, "
    "at::native::_cuda_scatter_gather_internal_kernel<{}, at::native::OpaqueType<4> >::"
    "operator()<at::native::TensorAssign>(at::TensorIterator&, long, long, long, "
    "at::native::TensorAssign const&)::{{lambda(int)#1}}>(int)"
)

ATEN = [
    (
        f"void at::native::elementwise_kernel<128, 4, at::native::gpu_kernel_impl_nocast<{COPY}>"
        f"(at::TensorIteratorBase&, {COPY} const&)::{{lambda(int)#1}}>(int, {COPY})",
        "elementwise_kernel<direct_copy_kernel_cuda>",
    ),
    (
        "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>, "
        "std::array<char*, 3ul> >(int, at::native::CUDAFunctor_add<float>, std::array<char*, 3ul>)",
        "vectorized_elementwise_kernel<CUDAFunctor_add>",
    ),
    (
        "void at::native::vectorized_elementwise_kernel<4, at::native::BinaryFunctor<float, float, "
        "float, at::native::binary_internal::MulFunctor<float> >, at::detail::Array<char*, 3> >"
        "(int)",
        "vectorized_elementwise_kernel<BinaryFunctor<MulFunctor>>",
    ),
    (
        "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::MeanOps"
        "<float, float, float, float>, unsigned int, float, 4, 4> >(at::native::ReduceOp<float>)",
        "reduce_kernel<MeanOps>",
    ),
    (
        "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<long, at::native::"
        "func_wrapper_t<long, at::native::sum_functor<long, long, long>::operator()"
        "(at::TensorIterator&)::{lambda(long, long)#1}>, unsigned int, long, 4> >(int)",
        "reduce_kernel<sum_functor>",
    ),
    (
        "void at::native::vectorized_elementwise_kernel<8, at::native::GeluCUDAKernelImpl"
        "(at::TensorIteratorBase&, at::native::GeluType)::{lambda()#2}::operator()() const::"
        "{lambda()#4}::operator()() const::{lambda(c10::BFloat16)#1}, std::array<char*, 2ul> >()",
        "vectorized_elementwise_kernel<GeluCUDAKernelImpl#2>",
    ),
    (
        "void at::native::elementwise_kernel_manual_unroll<128, 4, at::native::"
        f"gpu_kernel_impl_nocast<{GROUP_NORM}{{lambda(float, float, float, float, float)#2}}>"
        "(at::TensorIteratorBase&)::{lambda(int, bool)#1}>(int)",
        "elementwise_kernel_manual_unroll<GroupNormBackwardKernelImplInternal/5#2>",
    ),
    (
        "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<at::native::(anonymous "
        "namespace)::TensorListMetadata<1>, at::native::(anonymous namespace)::"
        "BinaryOpScalarFunctor<float, 1, 1, 0>, std::multiplies<float>, float>(float)",
        "multi_tensor_apply_kernel<BinaryOpScalarFunctor, multiplies>",
    ),
    (
        "void (anonymous namespace)::softmax_warp_forward<float, float, float, 10, true, false>"
        "(float*, float const*, int, int, int, bool const*, int, bool)",
        "softmax_warp_forward<10, 1, 0>",
    ),
    (
        "void at::native::_scatter_gather_elementwise_kernel<128, 4, at::native::"
        "_cuda_scatter_gather_internal_kernel<true, float>::operator()<at::native::ReduceAdd>"
        "(at::TensorIterator&, long)::{lambda(int)#1}>(int)",
        "_scatter_gather_elementwise_kernel<_cuda_scatter_gather_internal_kernel<true, ReduceAdd>>",
    ),
]

LIBRARIES = [
    (
        "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_128x64_64x3_tn_align8>"
        "(cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_128x64_64x3_tn_align8::Params)",
        "cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_128x64_64x3_tn_align8",
    ),
    ("void cutlass::Kernel<float>(int)", "cutlass::Kernel"),
    (
        "void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<64, 128, 128, "
        "4, false, false, cutlass::bfloat16_t, pytorch_flash::Flash_kernel_traits<64, 128, 128, 4, "
        "cutlass::bfloat16_t> >, false, true, false>(pytorch_flash::Flash_fwd_params)",
        "flash_fwd_kernel<64, 0, 1, 0>",
    ),
    (
        "std::enable_if<!(false), void>::type internal::gemvx::kernel<int, float, false, true, "
        "7, cublasGemvParams<cublasGemvTensorStridedBatched<float const>, float> >(int)",
        "gemvx::kernel<0, 1, 7>",
    ),
    (
        "std::enable_if<(((8)>(0)))&&vllm::_typeConvert<c10::BFloat16>::exists, void>::type "
        "vllm::fused_add_rms_norm_kernel<c10::BFloat16, 8>(c10::BFloat16*, long, float, int)",
        "fused_add_rms_norm_kernel<8>",
    ),
    (
        "void vllm::act_and_mul_kernel<c10::BFloat16, &(c10::BFloat16 vllm::silu_kernel"
        "<c10::BFloat16>(c10::BFloat16 const&)), true>(c10::BFloat16*, c10::BFloat16 const*, int)",
        "act_and_mul_kernel<silu_kernel>",
    ),
    (
        "void tensorrt_llm::kernels::quantize_with_block_size<"
        "(tensorrt_llm::BlockScaleQuantizationType)2, __nv_bfloat16, 32, true>(int, int)",
        "quantize_with_block_size<2, 32, 1>",
    ),
    (
        "void cub::DeviceScanKernel<cub::AgentScanPolicy<128, 15, (cub::BlockLoadAlgorithm)3>, "
        "int*, int*, cub::ScanTileState<int, true>, cub::Sum, cub::NullType, int>(int*, int*)",
        "DeviceScanKernel<Sum, NullType>",
    ),
    (
        "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
        "ncclDevKernel_AllReduce_Sum_bf16_RING_LL",
    ),
    (
        "Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT256x192x64_MI16x16x1_SN_LDSB1_AFC1_WG64_4_1",
        "Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT256x192x64",
    ),
    (
        "sm80_xmma_wgrad_implicit_gemm_indexed_tf32f32_tf32f32_f32_nhwckrsc_nhwc_"
        "tilesize128x128x16_stage4_warpsize2x2x1_g1_tensor16x8x8_execute_split_k_kernel_cudnn_train",
        "sm80_xmma_wgrad_implicit_gemm_indexed_tf32f32_nhwckrsc_nhwc_128x128x16_split_k",
    ),
    (
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_execute_"
        "segment_k_off_kernel__5x_cublas",
        "sm90_xmma_gemm_bf16bf16_tn_n_128x128x64_segment_k",
    ),
    ("__amd_rocclr_copyBuffer.kd", "__amd_rocclr_copyBuffer"),
    ("foo<int>(int) [clone .constprop.0]", "foo"),
]

MANGLED = [
    (
        "_ZN5aiter24add_rmsnorm_quant_kernelIDF16bDF16bLi256ELi16ELb0ELb0ELb1ELi1EEE"
        "vPT0_PT_PfS4_S4_S4_diiiiiiib",
        "add_rmsnorm_quant_kernel<256, 16, 0, 0, 1, 1>",
    ),
    (
        "_ZN7sgl_hip10activation18act_and_mul_kernelI14__hip_bfloat16TnPFT_RKS3_EXadL_Z4siluIS2_ES3_"
        "S5_EEEEvPS3_PS4_i",
        "act_and_mul_kernel<silu>",
    ),
    (
        "_ZN2at6native29vectorized_elementwise_kernelILi4EZZZNS0_15sin_kernel_cudaERNS_"
        "18TensorIteratorBaseEENKUlvE0_clEvENKUlvE0_clEvEUlfE_St5arrayIPcLm2EEEEviT0_T1_",
        "vectorized_elementwise_kernel<sin_kernel_cuda>",
    ),
    (
        "_ZN2at6native13reduce_kernelILi512ELi1ENS0_8ReduceOpIfNS0_7MeanOpsIffffEEjfLi4EEEEEvT1_",
        "reduce_kernel<MeanOps>",
    ),
    ("_ZN12_GLOBAL__N_120softmax_warp_forwardIfLb1ELin3EEEvPT_", "softmax_warp_forward<1, -3>"),
    ("_Z6packedIJiN1a1XENS0_1YEEEvDpT_", "packed<X, Y>"),
    # What cannot be read on is shown as far as it was read, or as it stands.
    ("_ZN2at6native13reduce_kernelILi512ELi1ENS0_8Redu", "reduce_kernel<512, 1>"),
    ("_ZTV3foo", "_ZTV3foo"),
    ("_Z", "_Z"),
    ("_Z99foo", "_Z99foo"),
]

AS_THEY_STAND = [
    "Memcpy DtoD (Device -> Device)",
    "Memcpy HtoD (Pageable -> Device)",
    "Memset (Device)",
    "nvjet_sm90_tst_128x160_64x5_2x1_v_bz_TNT",
    "chunk_gated_delta_rule_fwd_kernel_h_blockdim64",
    "triton_poi_fused_add_0",
    "triton_red_fused__unsafe_view_add_mean_mul_pow_rsqrt_1",
    "ampere_sgemm_128x32_nn",
    "Cijk_S_GA",
    "sm80_xmma_gemm",
    "[CUDA memcpy DtoH]",
    " ",
]


# Real names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "short"), [*ATEN, *LIBRARIES, *MANGLED])
def test_short_kernel(name: str, short: str) -> None:
    assert short_kernel(name) == short
    assert short_kernel(short) == short


@pytest.mark.parametrize("name", AS_THEY_STAND)
def test_names_that_stay(name: str) -> None:
    assert short_kernel(name) == name


def test_no_name_has_the_name_that_the_reader_gives() -> None:
    assert short_kernel("") == short_kernel("[No name]") == "[No name]"


def test_gather_and_scatter_are_told_apart() -> None:
    gather, scatter = (short_kernel(SCATTER.format(flag)) for flag in ("false", "true"))
    assert gather != scatter
    assert gather.endswith("<false, TensorAssign>>")


def test_data_types_fold() -> None:
    names = [
        f"void f<{kind}, Functor<{kind}> >({kind})" for kind in ("float", "c10::Half", "long long")
    ]
    assert {short_kernel(name) for name in names} == {"f<Functor>"}


@pytest.mark.parametrize("anonymous", ["(anonymous namespace)", "<unnamed>", "{anonymous}"])
def test_anonymous_namespaces_go(anonymous: str) -> None:
    assert short_kernel(f"void {anonymous}::f<{anonymous}::Op<int>, 3>(int)") == "f<Op>"


@pytest.mark.parametrize(
    "lambda_", ["{lambda(float)#2}", "[lambda(float) (instance 2)]", "'lambda0'(float)"]
)
def test_lambdas_of_all_compilers(lambda_: str) -> None:
    assert short_kernel(f"void k<4, f(int)::{lambda_}>(int)") == "k<f#2>"


@pytest.mark.parametrize("operator", ["<", ">", "<<", ">>", "->", "()", "[]", "<=", "=="])
def test_operators_are_not_brackets(operator: str) -> None:
    name = f"void k<4, a::Op<int>::operator{operator}(int) const::{{lambda(int)#1}}>(int)"
    assert short_kernel(name) == "k<Op>"


# Any name -------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *("<", ">", "(", ")", "{", "}", "[", "]", ",", "::", " ", "&", "*", "->", "-", "#", "'"),
        *("operator<", "operator<<", "operator->", "operator()", "{lambda()#1}", "{lambda(int)#2}"),
        *("(anonymous namespace)", "void ", "Kernel", "gpu_kernel_impl", "f", "Op", "at", "gelu"),
        *("float", "128", "true", "_Z", "N", "I", "E", "Z", "L", "S_", "Ul", "1a", "X", "Li1E"),
        *("'lambda'", "'lambda0'(", "[lambda(", "instance 3", "&(", "operator", "half", "tuple"),
        *("Memcpy ", "Cijk_", "_MT1x1x1", "_xmma_", "tilesize1", ".kd", " [clone "),
    ]
)
SOUP = st.builds("".join, st.lists(PIECES, max_size=40))
MANGLED_SOUP = st.builds("_Z{}".format, st.text("NIEZLSUl_TXJDFPKv019abit", max_size=60))
ANY_NAME = st.one_of(st.text(max_size=60), SOUP, MANGLED_SOUP)


@given(ANY_NAME)
@example("\ud800<")
@example("\x00")
def test_any_text_has_a_short_form(name: str) -> None:
    short = short_kernel(name)
    assert short
    assert len(short) <= len(name) or not name
    assert short_kernel(short) == short


@given(st.sampled_from([*ATEN, *LIBRARIES, *MANGLED]), st.data())
def test_cut_names_have_a_short_form(pair: tuple[str, str], data: st.DataObject) -> None:
    name = pair[0][: data.draw(st.integers(1, len(pair[0])))]
    assert 0 < len(short_kernel(name)) <= len(name)


@pytest.mark.parametrize(
    "piece",
    [
        *("<", ">", "(", ")", "{", "[", ",", "::", "-", "&(", "'", "a<", "a<>", "f<&(", "f()::"),
        *("Kernel<", "Kernel<A,", "operator<", "operator<<", "operator->", "operator "),
        *(
            "{lambda(",
            "f()::{lambda()#1}",
            "(anonymous namespace)",
            "void ",
            "a ",
            ".kd",
            " [clone ",
        ),
        *("Cijk_", "_MT1x1x1_", "sm80_xmma_", "_f1_f_tilesize1x1x1_execute", "half", "Array", "__"),
        *("_ZN", "_Z1aI", "_ZZ", "_Z1aIXadL_Z1b", "9", "1a"),
    ],
)
@pytest.mark.parametrize("frame", ["{}", "f<{}>(int)", "_Z1aI{}", "sm80_xmma_{}!"])
def test_hostile_names_take_no_time(piece: str, frame: str) -> None:
    name = frame.format(piece * (10_000 // len(piece)))
    start = time.process_time()
    short = short_kernel(name)
    # Some 30 ms; a step too much for each character would be seconds.
    assert time.process_time() - start < 1.5
    assert 0 < len(short) <= len(name)
    assert short_kernel(short) == short


# The corpus -----------------------------------------------------------------------------------

GPU = {"kernel", "gpu_memcpy", "gpu_memset"}


def kernels_of(path: Path) -> set[str]:
    trace = json.loads(gzip.decompress(path.read_bytes()), strict=False)
    events = trace["traceEvents"] if isinstance(trace, dict) else trace
    return {e["name"] for e in events if e.get("ph") == "X" and e.get("cat") in GPU}


@pytest.mark.corpus
def test_kernels_of_the_corpus_stay_apart() -> None:
    paths = sorted((CORPUS / "third-party").glob("*.json.gz"))
    if not paths:
        pytest.skip(NO_CORPUS)
    by_short: defaultdict[str, set[str]] = defaultdict(set)
    for name in set[str]().union(*map(kernels_of, paths)):
        by_short[short_kernel(name)].add(name)
        assert short_kernel(short_kernel(name)) == short_kernel(name)
    # Data types and tuning fold, so that no form stands for more than a handful of names.
    assert max(map(len, by_short.values())) <= 8
    assert {"elementwise_kernel", "reduce_kernel", "Kernel", "kernel"}.isdisjoint(by_short)
