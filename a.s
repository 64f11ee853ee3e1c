	.file	"a.c"
	.text
	.p2align 4
	.globl	f_tanh
	.type	f_tanh, @function
f_tanh:
.LFB175:
	.cfi_startproc
	testq	%rdx, %rdx
	jle	.L5
	vbroadcastss	.LC12(%rip), %ymm15
	movl	$2147483647, %ecx
	xorl	%eax, %eax
	vbroadcastss	.LC14(%rip), %ymm14
	vbroadcastss	.LC36(%rip), %ymm13
	vmovd	%ecx, %xmm9
	movl	$-2147483648, %ecx
	vbroadcastss	.LC38(%rip), %ymm7
	vmovd	%ecx, %xmm8
	vpbroadcastd	%xmm9, %ymm9
	vbroadcastss	.LC40(%rip), %ymm12
	vbroadcastss	.LC42(%rip), %ymm11
	vbroadcastss	.LC44(%rip), %ymm10
	vpbroadcastd	%xmm8, %ymm8
	.p2align 4,,10
	.p2align 3
.L3:
	vbroadcastss	.LC2(%rip), %ymm2
	vmovups	(%rdi,%rax,4), %ymm1
	vbroadcastss	.LC16(%rip), %ymm4
	vmulps	%ymm1, %ymm1, %ymm0
	vpand	%ymm1, %ymm9, %ymm3
	vfmadd213ps	.LC3(%rip), %ymm0, %ymm2
	vfmadd213ps	.LC5(%rip), %ymm0, %ymm2
	vfmadd213ps	.LC7(%rip), %ymm0, %ymm2
	vfmadd213ps	.LC9(%rip), %ymm0, %ymm2
	vmulps	%ymm0, %ymm1, %ymm0
	vfmadd132ps	%ymm0, %ymm1, %ymm2
	vaddps	%ymm3, %ymm3, %ymm0
	vpand	%ymm1, %ymm8, %ymm1
	vcmpgtps	%ymm3, %ymm12, %ymm3
	vmaxps	%ymm0, %ymm15, %ymm0
	vminps	%ymm0, %ymm14, %ymm0
	vfmadd213ps	.LC17(%rip), %ymm0, %ymm4
	vaddps	.LC19(%rip), %ymm4, %ymm5
	vfmadd231ps	.LC21(%rip), %ymm5, %ymm0
	vfmadd132ps	.LC23(%rip), %ymm0, %ymm5
	vbroadcastss	.LC26(%rip), %ymm0
	vfmadd213ps	.LC27(%rip), %ymm5, %ymm0
	vfmadd213ps	.LC29(%rip), %ymm5, %ymm0
	vfmadd213ps	.LC31(%rip), %ymm5, %ymm0
	vandps	%ymm13, %ymm4, %ymm4
	vfmadd213ps	.LC33(%rip), %ymm5, %ymm0
	vpslld	$23, %ymm4, %ymm4
	vmulps	%ymm5, %ymm5, %ymm6
	vfmadd132ps	%ymm6, %ymm5, %ymm0
	vaddps	%ymm7, %ymm0, %ymm0
	vfmadd132ps	%ymm4, %ymm7, %ymm0
	vdivps	%ymm0, %ymm11, %ymm0
	vaddps	%ymm7, %ymm0, %ymm0
	vandps	%ymm10, %ymm0, %ymm0
	vpor	%ymm0, %ymm1, %ymm1
	vpblendvb	%ymm3, %ymm2, %ymm1, %ymm1
	vmovups	%ymm1, (%rsi,%rax,4)
	addq	$8, %rax
	cmpq	%rax, %rdx
	jg	.L3
	vzeroupper
.L5:
	ret
	.cfi_endproc
.LFE175:
	.size	f_tanh, .-f_tanh
	.section	.rodata.cst4,"aM",@progbits,4
	.align 4
.LC2:
	.long	-1145376537
	.section	.rodata.cst32,"aM",@progbits,32
	.align 32
.LC3:
	.long	1017713486
	.long	1017713486
	.long	1017713486
	.long	1017713486
	.long	1017713486
	.long	1017713486
	.long	1017713486
	.long	1017713486
	.align 32
.LC5:
	.long	-1118036435
	.long	-1118036435
	.long	-1118036435
	.long	-1118036435
	.long	-1118036435
	.long	-1118036435
	.long	-1118036435
	.long	-1118036435
	.align 32
.LC7:
	.long	1040745363
	.long	1040745363
	.long	1040745363
	.long	1040745363
	.long	1040745363
	.long	1040745363
	.long	1040745363
	.long	1040745363
	.align 32
.LC9:
	.long	-1096111463
	.long	-1096111463
	.long	-1096111463
	.long	-1096111463
	.long	-1096111463
	.long	-1096111463
	.long	-1096111463
	.long	-1096111463
	.section	.rodata.cst4
	.align 4
.LC12:
	.long	-1028653056
	.align 4
.LC14:
	.long	1118961664
	.align 4
.LC16:
	.long	1069066811
	.section	.rodata.cst32
	.align 32
.LC17:
	.long	1262485631
	.long	1262485631
	.long	1262485631
	.long	1262485631
	.long	1262485631
	.long	1262485631
	.long	1262485631
	.long	1262485631
	.align 32
.LC19:
	.long	-884998017
	.long	-884998017
	.long	-884998017
	.long	-884998017
	.long	-884998017
	.long	-884998017
	.long	-884998017
	.long	-884998017
	.align 32
.LC21:
	.long	-1087275008
	.long	-1087275008
	.long	-1087275008
	.long	-1087275008
	.long	-1087275008
	.long	-1087275008
	.long	-1087275008
	.long	-1087275008
	.align 32
.LC23:
	.long	962494595
	.long	962494595
	.long	962494595
	.long	962494595
	.long	962494595
	.long	962494595
	.long	962494595
	.long	962494595
	.section	.rodata.cst4
	.align 4
.LC26:
	.long	984945178
	.section	.rodata.cst32
	.align 32
.LC27:
	.long	1007230193
	.long	1007230193
	.long	1007230193
	.long	1007230193
	.long	1007230193
	.long	1007230193
	.long	1007230193
	.long	1007230193
	.align 32
.LC29:
	.long	1026206841
	.long	1026206841
	.long	1026206841
	.long	1026206841
	.long	1026206841
	.long	1026206841
	.long	1026206841
	.long	1026206841
	.align 32
.LC31:
	.long	1042983497
	.long	1042983497
	.long	1042983497
	.long	1042983497
	.long	1042983497
	.long	1042983497
	.long	1042983497
	.long	1042983497
	.align 32
.LC33:
	.long	1056964606
	.long	1056964606
	.long	1056964606
	.long	1056964606
	.long	1056964606
	.long	1056964606
	.long	1056964606
	.long	1056964606
	.section	.rodata.cst4
	.align 4
.LC36:
	.long	255
	.align 4
.LC38:
	.long	1065353216
	.align 4
.LC40:
	.long	1059061760
	.align 4
.LC42:
	.long	-1073741824
	.align 4
.LC44:
	.long	2147483647
	.ident	"GCC: (Debian 12.2.0-14+deb12u1) 12.2.0"
	.section	.note.GNU-stack,"",@progbits
